def add(parser):
    pass
