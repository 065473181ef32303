"""A tool of one's own: environment.tools = ["python:my_tools.search"]."""

PRICES = {
    "lamp": 17, "chair": 42, "desk": 95, "rug": 38, "shelf": 61, "clock": 23, "vase": 12, "mirror": 54, "sofa": 240,
    "stool": 29, "bed": 310, "mug": 6, "plate": 9, "pillow": 14, "kettle": 33, "broom": 11, "candle": 4, "fan": 47,
}  # fmt: skip


def search(query: str) -> str:
    """Look an article up in the shop's list.

    Args:
        query: The article, one word.

    Returns:
        What the list says of it.
    """
    if query.lower() not in PRICES:
        raise ValueError(f"there is no {query!r} in the list")
    return f"{query}: {PRICES[query.lower()]} euros"
