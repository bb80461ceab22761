"""Where raymeta meets the machine: files, stores, signals, streams, the command line, and code of other people.

Whatever somebody else may have made is read here, bounded in size. Credentials are taken out of every text.
"""
