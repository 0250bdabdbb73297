"""Paddle Serving: its protocols on the server's port, its clients, its launchers' command lines, its model folders.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `commands.py` (`export-serving`) and `plugin.py`:

    PROTOCOLS   baidu_std and gRPC get the connections that begin with their first bytes  (`port_protocols.py`)
    ENDPOINTS   /GeneralModelService/... and the pipeline's gateway, /ernie/prediction    (`http.py`)
    SERVE_OPTIONS  --pipeline_service and --pipeline_method                               (`pipeline_options.py`)

A request comes as protobuf or JSON (`messages.py`, `json_messages.py`) in one of two services: tensors or texts for the
C++ server's GeneralModelService (`general_model.py`), texts for the Python pipeline (`pipeline.py`). Both ask the
server's own queues for scores and vectors (`served_models.py`), so that pairs of all protocols share batches. The
clients in `clients/` write the same messages; `launchers/` read the vendor's command lines and configurations and start
this server, or the vendor's. `export_serving.py` writes the two folders that the vendor's servers and clients open.
"""
