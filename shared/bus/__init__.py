"""JetStream, in the few words that this project needs. ``client`` is the only module that imports nats.

- ``client``: connection, acknowledged publish, direct and leader reads
- ``chain``: appends that name their predecessor (SPEC.md M1)
- ``tail``: an ordered reader without acks, for owners of a partition
- ``pull``: competing consumers, with credit instead of queues
- ``bucket``: key-value with compare-and-set
- ``topology``: declares every stream, bucket and consumer
"""

from shared.bus.bucket import Bucket, Entry
from shared.bus.chain import Chain
from shared.bus.client import Ack, Bus, Stored, WrongLast
from shared.bus.pull import Delivery, Puller
from shared.bus.tail import Tail

__all__ = ["Ack", "Bucket", "Bus", "Chain", "Delivery", "Entry", "Puller", "Stored", "Tail", "WrongLast"]
