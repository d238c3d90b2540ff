class Parser:
    ByName = {"first": object, "second": object}
