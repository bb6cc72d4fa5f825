"""Stand-in for Slicer's translations: English stays English."""


def tr(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"only text can be translated, not {type(text).__name__}")
    return text


def translate(context: str, text: str) -> str:
    if not context:
        raise ValueError("a translation needs a context")
    return tr(text)
