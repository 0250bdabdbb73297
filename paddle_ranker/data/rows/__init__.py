"""Rows of every role (pairs, triples, documents, judgments) in every format of table.

    FileFormat      tab-separated text, JSON lines, Parquet; `read_rows` gives a file's rows, whatever it is
    Header          whether the first row is a header, and which column its names say
    RecordFile      a file of rows of one role: `Pair`, `LabeledPair`, `Triple`, `Text`, ...
    DocumentFile    a file or folder of documents to index, with fields; other files by their readers
    Skips           what was left out, counted and said once

A file is opened once, also a pipe: what was read to find out its encoding, format and header is read again from memory.
A bad row ends the command with its file and line, or is counted if the caller said so.
"""
