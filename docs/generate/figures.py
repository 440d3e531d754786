def every():
    return {}
