"""The writing end of a Kinesis stream.

append ─► waiting ─► the writer thread: a call for every 500 of whatever waits, again for those refused ─► the futures
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from feature_repo.contract.events import Event
from feature_repo.log.event_log import Appended, Backlog, encode, shard_key

TIMEOUT_S = 30.0
MOST_AT_ONCE = 500
MOST_BYTES_AT_ONCE = 4 * 2**20

_Record = dict[str, Any]


class Writer:
    """Puts events into a stream, in a thread of its own.

    kinesis: boto3's client.
    """

    def __init__(self, kinesis: Any, stream: str, most_waiting: int) -> None:
        self._kinesis, self._stream, self._backlog = kinesis, stream, Backlog(most_waiting)
        self._waiting: list[tuple[list[_Record], Appended]] = []
        self._closed = False
        self._appended = threading.Condition()
        self._thread = threading.Thread(target=self._write, name=f"writes {stream}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> Appended:
        """As `EventLog.append`."""
        records: list[_Record] = [{"PartitionKey": shard_key(event), "Data": encode(event)} for event in events]
        future: Appended = Future()
        future.set_running_or_notify_cancel()
        with self._appended:
            if self._closed:
                raise RuntimeError("expected an open event log; this one is closed")
            self._backlog.take([record["Data"] for record in records])
            self._waiting.append((records, future))
            self._appended.notify()
        return future

    def close(self) -> None:
        """Put what waits."""
        with self._appended:
            self._closed = True
            self._appended.notify()
        self._thread.join()

    def _write(self) -> None:
        while True:
            with self._appended:
                self._appended.wait_for(lambda: self._waiting or self._closed)
                appends, self._waiting = self._waiting, []
            if not appends:
                return
            deadline = time.monotonic() + TIMEOUT_S
            for chunk in _chunks([(record, future) for records, future in appends for record in records]):
                try:
                    self._put([record for record, _ in chunk], deadline)
                except Exception as error:
                    for future in {future for _, future in chunk if not future.done()}:
                        future.set_exception(error)
            for records, future in appends:
                self._backlog.drop([record["Data"] for record in records])
                if not future.done():
                    future.set_result(None)

    def _put(self, records: list[_Record], deadline: float) -> None:
        """Put these, again where Kinesis refused some of them.

        Raises:
            ClientError, BotoCoreError, TimeoutError: they may not be there.
        """
        wait_s, why = 0.05, set[str]()
        while records:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._stream}: {len(records)} records not put within {TIMEOUT_S:g} s: {why}")
            answers = self._kinesis.put_records(StreamName=self._stream, Records=records)["Records"]
            why = {answer["ErrorMessage"] for answer in answers if "ErrorCode" in answer}
            records = [r for r, answer in zip(records, answers, strict=True) if "ErrorCode" in answer]
            if records:
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 1.0)


def _chunks(records: list[tuple[_Record, Appended]]) -> Iterator[list[tuple[_Record, Appended]]]:
    """Cut to what one call may hold."""
    chunk: list[tuple[_Record, Appended]] = []
    size = 0
    for record, future in records:
        size += len(record["Data"]) + len(record["PartitionKey"].encode())
        if chunk and (len(chunk) == MOST_AT_ONCE or size > MOST_BYTES_AT_ONCE):
            yield chunk
            chunk, size = [], len(record["Data"])
        chunk.append((record, future))
    if chunk:
        yield chunk
