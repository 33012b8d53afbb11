"""Fields that every configuration must take and give back, for `ConfigTester`."""

COMMON_KWARGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["ModelForSomething"],
    "id2label": {0: "waving", 1: "walking"},
    "label2id": {"waving": 0, "walking": 1},
    "problem_type": "single_label_classification",
    "is_encoder_decoder": False,
}
