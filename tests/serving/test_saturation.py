"""The service counts sums that are kept at a limit of int64."""

from pathlib import Path

from feature_repo.settings import Settings, now_us
from serving.times import rfc3339
from tests.serving.test_users import Service


def test_sums_at_the_limit_are_in_the_metrics(tmp_path: Path) -> None:
    service = Service(Settings(home=tmp_path, domain="oulad"))
    sent = {"type": "track", "event": "Viewed", "userId": "u", "timestamp": rfc3339(now_us() - 1_000_000)}
    large = sent | {"properties": {"clicks": 2**63 - 1}}
    service.send(large | {"messageId": "m1", "userId": "other", "properties": {"clicks": 2}})
    service.decide("other")
    assert "\nfirstmile_sums_at_limit 0\n" in service.ask("GET", "/metrics").text
    service.send(large | {"messageId": "m2"}, large | {"messageId": "m3"})
    assert service.decide("u")["known"]
    (line,) = [w for w in service.ask("GET", "/metrics").text.splitlines() if w.startswith("firstmile_sums_at_limit ")]
    assert int(line.split()[1]) == service.live.sums_at_limit > 0
    service.close()
