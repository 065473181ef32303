"""One module a kind of row. Each reads what a row says and checks nothing that all kinds share."""
