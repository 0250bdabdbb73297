"""Static models of other programs, of Paddle or in ONNX, brought into the form of this toolkit's own exports.

`find_graph` recognises such files by their names, `as_export` writes an export beside the cache: the graph is read
(`static_program`, `foreign_onnx`), its inputs and outputs are found (`foreign_graph`) and renamed, and its weights are
kept as they are. Nothing is unpickled, and a graph names no file outside its folder.
"""
