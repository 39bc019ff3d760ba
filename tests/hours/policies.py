"""Answers when Cloud Custodian's policies on hours would switch instances, run every quarter of an hour.

Reads {"policies": a policy file's text, "from", "to", "values": [a tag's value or null, …]} and writes for each value
{"on": […], "off": […]}: the moments from which on a policy that starts, or stops, matches an instance with this tag.
A tag of null is no tag at all. The filters are made from the file by its own reader and classes.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import yaml
from c7n.filters import offhours


class Clock(datetime):
    """Stands in for the filters' clock."""

    moment: datetime

    @classmethod
    def now(cls, tz=None):
        return cls.moment.astimezone(tz)


offhours.datetime = SimpleNamespace(datetime=Clock)

asked = json.load(sys.stdin)
begin, end = (datetime.fromisoformat(asked[side]).astimezone(timezone.utc) for side in ("from", "to"))
filters = {}
for policy in yaml.safe_load(asked["policies"])["policies"]:
    if policy["resource"] not in ("ec2", "aws.ec2"):
        continue
    for data in policy["filters"]:
        for side, filter_of in (("on", offhours.OnHour), ("off", offhours.OffHour)):
            if data.get("type") == f"{side}hour":
                filters[side] = filter_of(data).validate()
answers = []
for value in asked["values"]:
    answer = {"on": [], "off": []}
    for side, it in filters.items():
        tags = [] if value is None else [{"Key": it.tag_key, "Value": value}]
        instance = {"InstanceId": "i-1", "Tags": tags}
        Clock.moment, last = begin, None
        while Clock.moment < end:
            # It matches for an hour, and counts as one switch.
            if it(instance) and (last is None or Clock.moment - last >= timedelta(hours=1)):
                last = Clock.moment
                answer[side].append(last.isoformat())
            Clock.moment += timedelta(minutes=15)
    answers.append(answer)
json.dump(answers, sys.stdout)
