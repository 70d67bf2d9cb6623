"""A small data set in a folder as TFDS prepares it, for the tests that read one."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

protos: Any = tf_example_pb2  # generated, without stubs


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))


def _record(image, label, encoding):
    pixels = image[..., ::-1] if image.shape[-1] == 3 else image
    _, encoded = cv2.imencode(f".{encoding}", pixels)
    example = protos.Example()
    example.features.feature["image"].bytes_list.value.append(encoded.tobytes())
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


def prepare(root, name, splits, shape, encoding="png", file_format="array_record"):
    """Writes the folder that TFDS prepares: {split: [(image, label), ...]}."""
    folder = Path(root) / name / "1.0.0"
    folder.mkdir(parents=True)
    base = name.split("/")[0]
    for split, examples in splits.items():
        path = folder / f"{base}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image, label in examples:
            writer.write(_record(image, label, encoding))
        writer.close()
    info = {
        "name": base,
        "version": "1.0.0",
        "fileFormat": file_format,
        "supervisedKeys": {
            "tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}
        },
        "splits": [
            {
                "name": split,
                "shardLengths": [str(len(examples))],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, examples in splits.items()
        ],
    }
    feature = "tensorflow_datasets.core.features"
    dimensions = [str(n) for n in shape]
    features = {
        "pythonClassName": f"{feature}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {
                    "pythonClassName": f"{feature}.image_feature.Image",
                    "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}},
                },
                "label": {
                    "pythonClassName": f"{feature}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "1000"},
                },
            }
        },
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def images(count, shape=(6, 6, 3), labels=(3, 7, 900), seed=0):
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (count, *shape)).astype(np.uint8)
    return [(pixels[i], labels[i % len(labels)]) for i in range(count)]


def prepared(tmp_path):
    splits = {"train": images(5), "test": images(3, seed=1)}
    return prepare(tmp_path / "data", "kmnist", splits, (6, 6, 3))
