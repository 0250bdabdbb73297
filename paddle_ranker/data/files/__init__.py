"""Files of a folder: their words, each with its place.

    Reader         gives the parts of one kind of file: pages, slides, sheets, messages; registered by suffix
    PlacedText     a text whose spans have places: boxes on a page, seconds, cells
    ReaderPool     child processes that read, with limits of time and memory for each file
    DecodedBytes   what all decoders together may hold

A file from anywhere costs no more than its size allows: declared sizes are refused before decoding, each decoder calls
`step` between its blocks, and a reader that cannot be stopped so runs in a process that can. What was read in part is
said with its reason (`Unread`).
"""
