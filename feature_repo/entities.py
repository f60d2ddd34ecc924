"""Entities: the things that features describe."""

from feast import Entity, ValueType

capture = Entity(name="capture", join_keys=["capture_id"], value_type=ValueType.INT64)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
category = Entity(name="category", join_keys=["category"], value_type=ValueType.INT64)
client = Entity(name="client", join_keys=["client_id"], value_type=ValueType.INT64)
