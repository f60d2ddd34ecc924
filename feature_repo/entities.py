"""Entities: the things that features describe."""

from feast import Entity, ValueType

capture = Entity(name="capture", join_keys=["capture_id"], value_type=ValueType.INT64)
