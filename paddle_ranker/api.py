"""The declared API: the names that recipes and plugins import, by module, from the commands down to the errors.

Programs need only `paddle_ranker` itself: `Index`, `Ranker`, `evaluate` and `train` (docs/python.md). Whoever adds to
the toolkit, in a recipe or in a package of their own (CONTRIBUTING.md), imports these names and no others. Docstrings
say what each is. If a name goes, moves or changes its meaning, CHANGELOG.md says so; all other names may change at any
time.
"""

from __future__ import annotations

API: dict[str, tuple[str, ...]] = {
    module: tuple(names.split())
    for module, names in {
        "": "runtime",
        "commands.command_registry": "Command COMMANDS DATA ENCODERS OF_KIND SCORE TRAIN",
        "commands.evaluate": "evaluate",
        "commands.export": "export ExportOptions write_export",
        "commands.predict": "predict",
        "commands.starter": "PRETRAINING",
        "serving.clients.teacher": "HttpTeacher",
        "serving.clients.teacher_options": "TeacherOptions",
        "serving.core.batcher": "Batcher BatchObserver",
        "serving.core.faults": "Fault INVALID OVERLOADED TOO_LARGE UNPROCESSABLE",
        "serving.core.jobs": "no_texts",
        "serving.core.json_text": "json_bounds parse_json",
        "serving.core.limits": "check_count check_queue Limits require_key",
        "serving.core.server_config": "RANKER_SLOT ServeConfig",
        "serving.core.threads": "MUCH_BYTES run_in_thread StoppableWork",
        "serving.core.validation": "refusal",
        "serving.http.endpoints": "Endpoint ENDPOINTS",
        "serving.http.exchange": "answer deadline_of read_body",
        "serving.http.openapi": "DescribedRoute",
        "serving.process.protocols": "PortProtocol ProtocolHandler PROTOCOLS ServerContext",
        "serving.slots.ranker_slot": "RankerSlot",
        "serving.slots.self_check": "tolerance_of",
        "serving.slots.services": "CountedRequest ScoringService",
        "serving.slots.slot_kinds": "SlotKind SLOTS",
        "serving.slots.slots": "computed Served ServedModel Slot Slots",
        "export.gates": "file_facts Quality QuantizeOptions",
        "export.static_graph": "export_model",
        "training.examples": "EncodedExamples RankingExamples teacher_column teacher_logits",
        "training.losses.expression": "factor_of LossExpression margin_of parse_loss RankingLoss",
        "training.losses.loss_registry": "Loss loss_help LOSSES",
        "training.mining": "Choice group_judgments Miner report_of SCORE_RATIO text_key",
        "training.ranker_training": "open_evaluation start_training train_ranker",
        "training.run": "Description Start start_run TrainingRun",
        "training.task": "FitResult Means OnEvaluation Task",
        "training.teachers": "Teacher Teachers",
        "training.training_options": "AdapterOptions RankerTrainingOptions training_main TrainingOptions",
        "evaluation.command_steps": "print_evaluation score_measured_pairs",
        "evaluation.evaluation_set": "mean_margin_loss require_both_classes",
        "evaluation.measuring_options": "EvaluateOptions",
        "evaluation.pairs": "MeasuredPairs",
        "evaluation.recall": "label_of notes_on open_pairs RecallSet",
        "evaluation.report.text": "comparison_json",
        "evaluation.retrieval": "compare_runs comparison_lines JudgedQueries lexical_runs",
        "retrieval.index.towers": "MANY_TEXTS note_export",
        "retrieval.index.vector_indexes": "index_of_vectors",
        "retrieval.stored.candidate_indexes": "Document Documents Hits INDEXES IndexKind IndexOptions TowerIndex",
        "retrieval.stored.manifest": "VECTORS",
        "retrieval.stored.schema": "FIELD_TYPES file_type",
        "retrieval.vectors.exact_search": "nearest refuse_unstorable",
        "retrieval.vectors.parallel_encoding": "EncodePlan Encoding",
        "retrieval.vectors.text_vectors": "nearest normalised open_to_compare Tower",
        "retrieval.vectors.vector_files": "open_vectors VectorFile",
        "retrieval.vectors.vector_settings": "VectorsInfo",
        "retrieval.work.turns": "idle watch",
        "scoring.engines.dygraph": "DygraphEngine",
        "scoring.engines.engine": "Engine",
        "scoring.engines.engine_registry": "EngineKind ENGINES",
        "scoring.engines.inputs": "InputLimits",
        "scoring.engines.precisions": "PRECISIONS",
        "scoring.files": "STANDARD_INPUT",
        "scoring.loading": "open_model ScoringModel",
        "scoring.scorer": "BatchRunner",
        "scoring.scoring_options": (
            "BatchOptions EngineOptions PoolingOptions PrintingOptions PublishedEngineOptions ScoringOptions "
            "TowerOptions"
        ),
        "scoring.versions": "named versions",
        "model.config": "EncoderConfig require_tokenizer_fits Share",
        "model.encoder_loading": "Checkpoint encoder_of read_checkpoint unfilled",
        "model.exported": "Exported ExportedFolder",
        "model.families": "BERT config_from FAMILIES require_config write_config",
        "model.hugging_face.folder": "folder_pair_encoder",
        "model.hugging_face.sentences": "is_sentences",
        "model.hugging_face.weights": "load_torch_arrays",
        "model.info": "card_tables RankerInfo",
        "model.load_options": "DEFAULT_OPTIONS LoadOptions POOLINGS",
        "model.masked_lm": "HEAD masked_lm_head",
        "model.match_levels": "LEVELS levels_of_pair",
        "model.model_folder": "ANY_TOWER ENCODER identify load_encoder load_model MASKED_LM Role",
        "model.model_kind": "add_kind ArraySpec ExportFacts ModelKind Signature TOKENS TRAINED TrainedModel",
        "model.networks.attention": "MASKED",
        "model.networks.bert": "activation_named Attention Encoder",
        "model.networks.dropout": "Dropout Masks",
        "model.networks.lora": "add_adapters",
        "model.parameters": "count load_arrays PARAMETERS_FILE save_arrays set_parameters",
        "model.pretrained": "find_model resolve_model resolved",
        "model.ranker_folder": "checked_match_embeddings",
        "model.role_names": "ENCODER MASKED_LM RANKER TOWER TRAINED_TOWER WORD_PIECE_ENCODER",
        "model.tower": "QUERY_FOLDER RowsOfTower TextEncoder TowerInfo",
        "model.tower_network": (
            "APART LEXICAL load_tower query_tower_of read_tower save_query_tower save_tower start_tower "
            "TowerModel TowerNetwork"
        ),
        "lexical.token_comparison": "Speller",
        "lexical.tokens": "jieba_segmenter",
        "metrics.auc": "auc_of",
        "metrics.calibration": "AUTO",
        "metrics.intervals": "bootstrap_interval bootstrap_intervals Interval mean_of Statistic",
        "metrics.measures": "MEASURES QueryMean recall_at reciprocal_rank_at",
        "metrics.ranking": "Ranking RELEVANT",
        "encoding.batching": "Groups permuted scoring_batches",
        "encoding.column_store": "MAX_BYTES PairCollector within",
        "encoding.columns": "Columns EncodedPairs EncodedTexts Indices offsets_of PICTURE ragged_positions TEXT",
        "encoding.pair_encoder": "never_match_ids PairEncoder",
        "encoding.samples": "PAIRS sample_batches timing_batches",
        "encoding.tokenizers.builtin": "CONTINUATION",
        "encoding.tokenizers.interface": "ModelTokenizer Spelling",
        "encoding.tokenizers.text_rules": "is_chinese WordSplitter",
        "encoding.tokenizers.tokenizer_folder": "ROLES TokenizerFiles VOCABULARY_FILE",
        "encoding.vocabulary": "SPECIAL_TOKENS train_wordpiece_vocabulary write_new_tokenizer",
        "data.files.pictures": (
            "decoded DecodedBytes ImageError ImageLimits ImageTooLargeError min_is_white_in read_image "
            "require_picture rgb Source upright"
        ),
        "data.files.placed_text": "PICTURES",
        "data.rows.beir": "beir_corpus",
        "data.rows.dice": "Dice",
        "data.rows.documents": "DocumentFile",
        "data.rows.formats": "BadRow FileFormat FORMATS JSON_EXTENSIONS read_lines read_rows Row write_rows",
        "data.rows.overlap": "overlap_warning warn_of_overlap",
        "data.rows.records": (
            "LabeledPair Line open_as_one_of Pair read_records Record RecordFile Text Triple write_records"
        ),
        "data.rows.skips": "REASONS_SHOWN Skips",
        "data.rows.trec": "in_order",
        "storage.arrays": "gather map_array",
        "storage.atomic": (
            "cache_folder check_writable made_once make_folder new_file new_folder remove_unfinished UNFINISHED"
        ),
        "storage.declared": "Between Count Length OneOf read_declared",
        "storage.digest": "content_digest json_digest warn_of_same_data",
        "storage.download": "fetch forget",
        "storage.plotting": "BLUE GREEN new_picture ORANGE PURPLE SKY YELLOW",
        "storage.prefetch": "chunks",
        "storage.streams": "naming_the_file output_free_for",
        "storage.untrusted": "read_versioned Unchecked",
        "distributed": "ProcessGroup",
        "options": (
            "DeviceOptions DocumentOptions json_text main_of note note_counts note_without_effect option Options "
            "RayOptions redeclare refuse_given RowOptions ThreadOptions"
        ),
        "options.declare": "ANY_TEXT FETCHED FETCHED_FOLDER fields_of ON_CLUSTER shown_name TAKEN",
        "options.input_files": "folder_of join_files paths_of split_paths",
        "registry": "Registry VARIABLE",
        "stores": "uploading",
        "addresses": "scheme_of",
        "progress": "Progress",
        "errors": (
            "brief CheckpointError DataError DependencyError listed quoted RankerError refuse_text spelling_hint "
            "UsageError"
        ),
        "array_types": "Array Arrays Booleans Floats Integers STORED_TYPES Vectors",
    }.items()
}
