"""Answers what Cloud Custodian's own filters say to a tick every hour.

Reads {"from", "to", "cases": [{"tag", "policy"}, …]} and writes for each case {"on": […], "off": […]}: the hours at which a
policy with the filter `onhour` or `offhour` would find an instance with this tag. A tag of null is no tag at all.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

from c7n.filters import offhours


class Clock(datetime):
    """Stands in for the filters' clock."""

    moment: datetime

    @classmethod
    def now(cls, tz=None):
        return cls.moment.astimezone(tz)


# A tag that it can't read would be an answer of nothing but "no".
def refuse(record):
    sys.exit(record.getMessage())


offhours.log.addFilter(refuse)
offhours.datetime = SimpleNamespace(datetime=Clock)

asked = json.load(sys.stdin)
begin, end = (datetime.fromisoformat(asked[side]).astimezone(timezone.utc) for side in ("from", "to"))
answers = []
for case in asked["cases"]:
    tags = [] if case["tag"] is None else [{"Key": "maid_offhours", "Value": case["tag"]}]
    instance = {"InstanceId": "i-1", "Tags": tags}
    answer = {}
    for side, filter_of in (("on", offhours.OnHour), ("off", offhours.OffHour)):
        it = filter_of({"type": f"{side}hour", **case["policy"]}).validate()
        Clock.moment, answer[side] = begin, []
        while Clock.moment < end:
            if it(instance):
                answer[side].append(Clock.moment.isoformat())
            Clock.moment += timedelta(hours=1)
    answers.append(answer)
json.dump(answers, sys.stdout)
