//! AWS's Query protocol: a form comes in, XML goes out. Knows nothing of the cloud's state.

mod storage;
mod sts;

use std::collections::BTreeMap;

use quick_xml::Writer;
use quick_xml::escape::partial_escape;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use crate::api::{Action, Answer, Change, Request, Tag};
use crate::describe::Describe;
use crate::fault::Refusal;
use crate::filter::Filter;
use crate::machine::{Machine, state_code};
use crate::place::Place;
use crate::storage::Verb;
use crate::sts::{Caller, Credentials};

const XMLNS: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// A call as it came in.
pub(crate) struct Query {
    pub(crate) action: String,
    pub(crate) credentials: Credentials,
    pub(crate) region: String,
    pub(crate) params: BTreeMap<String, String>,
}

/// The service that a call is for: both have the same address here.
#[derive(Clone, Copy)]
pub(crate) enum Service {
    Ec2,
    Sts,
}

impl Query {
    /// Reads a call; the access key id and the region come from the signature's scope, since all regions have the same
    /// address here.
    pub(crate) fn new(authorization: &str, token: &str, form: &[u8]) -> Self {
        let params: BTreeMap<String, String> = form_urlencoded::parse(form).into_owned().collect();
        let scope = authorization.split_once("Credential=").map_or("", |(_, scope)| scope);
        let key = scope.split('/').next().unwrap_or_default();
        Self {
            action: params.get("Action").cloned().unwrap_or_default(),
            credentials: Credentials { key: key.to_owned(), token: token.to_owned() },
            region: scope.split('/').nth(2).unwrap_or("us-east-1").to_owned(),
            params,
        }
    }

    pub(crate) fn service(&self) -> Service {
        match self.action.as_str() {
            "AssumeRole" | "GetCallerIdentity" => Service::Sts,
            _ => Service::Ec2,
        }
    }

    /// Returns the ids of the resources that the call names.
    pub(crate) fn ids(&self) -> Vec<String> {
        let snapshot = self.params.get("SnapshotId").cloned().into_iter().collect();
        [self.list("InstanceId"), self.list("ResourceId"), snapshot].concat()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.params.get(name).is_some_and(|value| value == "true")
    }

    /// Parses the call, if it is for EC2.
    pub(crate) fn request(&self, caller: Caller) -> Result<Request, Refusal> {
        let action = match self.action.as_str() {
            "DescribeInstances" => Action::Describe(self.describe()?),
            "StartInstances" => Action::Start,
            "StopInstances" => Action::Stop { hibernate: self.flag("Hibernate") },
            "CreateTags" => Action::CreateTags(self.tags()),
            "DeleteTags" => Action::DeleteTags(self.tags()),
            "DescribeRegions" => Action::DescribeRegions,
            "DescribeSnapshots" => {
                let own = self.list("Owner").iter().any(|owner| owner == "self");
                Action::Storage(Verb::Snapshots { describe: self.describe()?, own })
            }
            "DescribeVolumes" => Action::Storage(Verb::Volumes(self.describe()?)),
            "DescribeImages" => Action::Storage(Verb::Images {
                describe: self.describe()?,
                deprecated: self.flag("IncludeDeprecated"),
                disabled: self.flag("IncludeDisabled"),
            }),
            "DescribeSnapshotAttribute" => Action::Storage(Verb::Attribute),
            "DescribeLockedSnapshots" => Action::Storage(Verb::Locked),
            "DescribeFastSnapshotRestores" => Action::Storage(Verb::Fast),
            "DeleteSnapshot" => Action::Storage(Verb::Delete),
            other => {
                let message = format!("The action {other} is not valid for this web service.");
                return Err(Refusal::new("InvalidAction", message));
            }
        };
        let place = Place { account: caller.account, region: self.region.clone() };
        Ok(Request { place, caller: caller.arn, ids: self.ids(), dry_run: self.flag("DryRun"), action })
    }

    fn describe(&self) -> Result<Describe, Refusal> {
        Ok(Describe {
            filters: self.filters(),
            max_results: self.number("MaxResults")?,
            next_token: self.params.get("NextToken").cloned(),
        })
    }

    /// Returns the values of the parameters `Name.1`, `Name.2` and so on.
    fn list(&self, name: &str) -> Vec<String> {
        (1..).map_while(|n| self.params.get(&format!("{name}.{n}")).cloned()).collect()
    }

    fn filters(&self) -> Vec<Filter> {
        let filter = |n| {
            let name = self.params.get(&format!("Filter.{n}.Name"))?.clone();
            Some(Filter { name, values: self.list(&format!("Filter.{n}.Value")) })
        };
        (1..).map_while(filter).collect()
    }

    fn tags(&self) -> Vec<Tag> {
        let tag = |n| {
            let key = self.params.get(&format!("Tag.{n}.Key"))?.clone();
            Some(Tag { key, value: self.params.get(&format!("Tag.{n}.Value")).cloned() })
        };
        (1..).map_while(tag).collect()
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.params.get(name) else {
            return Ok(None);
        };
        let invalid = |_| Refusal::new("InvalidParameterValue", format!("Invalid integer: {text}"));
        text.parse().map(Some).map_err(invalid)
    }
}

/// Writes the XML of a successful answer.
pub(crate) fn answer(action: &str, request_id: &str, answer: &Answer) -> String {
    let ec2 = |inside: &dyn Fn(&mut Xml)| {
        document(&format!("{action}Response"), Some(XMLNS), |xml| {
            xml.leaf("requestId", request_id);
            inside(xml);
        })
    };
    match answer {
        Answer::Instances(page, next_token) => ec2(&|xml| {
            xml.list("reservationSet", page, reservation);
            if let Some(token) = next_token {
                xml.leaf("nextToken", token);
            }
        }),
        Answer::Changes(changes) => ec2(&|xml| xml.list("instancesSet", changes, change)),
        Answer::Tagged => ec2(&|xml| xml.leaf("return", "true")),
        Answer::Regions(regions) => ec2(&|xml| xml.list("regionInfo", regions, region)),
        Answer::Storage(told) => ec2(&|xml| storage::told(xml, told)),
        Answer::Assumed(assumed) => sts::assumed(request_id, assumed),
        Answer::Caller(caller) => sts::caller(request_id, caller),
    }
}

/// Writes the XML of an error.
pub(crate) fn refusal(service: Service, request_id: &str, refusal: &Refusal) -> String {
    match service {
        Service::Ec2 => ec2_refusal(request_id, refusal),
        Service::Sts => sts::refusal(request_id, refusal),
    }
}

fn ec2_refusal(request_id: &str, refusal: &Refusal) -> String {
    document("Response", None, |xml| {
        xml.node("Errors", |xml| {
            xml.node("Error", |xml| {
                xml.leaf("Code", &refusal.code);
                xml.leaf("Message", &refusal.message);
            });
        });
        xml.leaf("RequestID", request_id);
    })
}

fn reservation(xml: &mut Xml, machine: &Machine) {
    xml.leaf("reservationId", &machine.id.replacen("i-", "r-", 1));
    xml.leaf("ownerId", &machine.account);
    xml.list("instancesSet", [machine], instance);
}

fn instance(xml: &mut Xml, machine: &Machine) {
    xml.instead = Some((xml.depth, machine.shown.clone()));
    truth(xml, machine);
    xml.instead = None;
}

fn truth(xml: &mut Xml, machine: &Machine) {
    xml.leaf("instanceId", &machine.id);
    xml.leaf("imageId", machine.image());
    xml.node("instanceState", |xml| state(xml, &machine.state));
    let host = machine.private_ip.replace('.', "-");
    xml.leaf("privateDnsName", &format!("ip-{host}.{}.compute.internal", machine.region));
    xml.leaf("reason", &machine.transition_reason);
    xml.leaf("instanceType", &machine.kind);
    xml.leaf("launchTime", &machine.launch_time.format("%Y-%m-%dT%H:%M:%S.000Z").to_string());
    xml.node("placement", |xml| {
        xml.leaf("availabilityZone", &machine.zone);
        xml.leaf("tenancy", if machine.tenancy.is_empty() { "default" } else { &machine.tenancy });
    });
    xml.node("monitoring", |xml| xml.leaf("state", "disabled"));
    xml.leaf("subnetId", &machine.subnet());
    xml.leaf("vpcId", &machine.vpc);
    xml.leaf("privateIpAddress", &machine.private_ip);
    if let Some(reason) = &machine.state_reason {
        xml.node("stateReason", |xml| {
            xml.leaf("code", &reason.code);
            xml.leaf("message", &reason.message);
        });
    }
    xml.leaf("architecture", "x86_64");
    // Linux (EC2 user guide, "AMI billing information fields").
    xml.leaf("usageOperation", "RunInstances");
    xml.leaf("rootDeviceType", machine.root_device_type());
    xml.leaf("rootDeviceName", "/dev/xvda");
    if machine.spot.is_some() {
        xml.leaf("instanceLifecycle", "spot");
        xml.leaf("spotInstanceRequestId", &machine.id.replacen("i-", "sir-", 1));
    }
    xml.node("hibernationOptions", |xml| {
        xml.leaf("configured", &machine.hibernation.to_string());
    });
    if !machine.tags_omitted {
        xml.list("tagSet", &machine.tags, |xml, (key, value)| {
            xml.leaf("key", key);
            xml.leaf("value", value);
        });
    }
    if let Some(principal) = &machine.managed_by {
        xml.node("operator", |xml| {
            xml.leaf("managed", "true");
            xml.leaf("principal", principal);
        });
    }
}

fn region(xml: &mut Xml, name: &String) {
    xml.leaf("regionName", name);
    xml.leaf("regionEndpoint", &format!("ec2.{name}.amazonaws.com"));
    xml.leaf("optInStatus", "opt-in-not-required");
}

fn change(xml: &mut Xml, change: &Change) {
    xml.leaf("instanceId", &change.id);
    xml.node("currentState", |xml| state(xml, &change.to));
    xml.node("previousState", |xml| state(xml, &change.from));
}

fn state(xml: &mut Xml, name: &str) {
    xml.leaf("code", &state_code(name).to_string());
    xml.leaf("name", name);
}

fn document(root: &str, xmlns: Option<&str>, inside: impl FnOnce(&mut Xml)) -> String {
    let mut xml = Xml { writer: Writer::new(Vec::new()), depth: 0, instead: None };
    let start = BytesStart::new(root);
    xml.write(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    xml.write(Event::Start(start.with_attributes(xmlns.map(|xmlns| ("xmlns", xmlns)))));
    inside(&mut xml);
    xml.write(Event::End(BytesEnd::new(root)));
    String::from_utf8(xml.writer.into_inner()).expect("what was written is made of strings")
}

struct Xml {
    writer: Writer<Vec<u8>>,
    /// How many elements are open, not counting the root.
    depth: usize,
    /// What to write instead of the elements at this depth: a text, or none to leave the element out.
    instead: Option<(usize, BTreeMap<String, Option<String>>)>,
}

impl Xml {
    fn leaf(&mut self, name: &str, text: &str) {
        self.node(name, |xml| xml.text(text));
    }

    /// Writes a list as EC2 does: one `item` element for each.
    fn list<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, inside: impl Fn(&mut Self, T)) {
        self.node(name, |xml| {
            for item in items {
                xml.node("item", |xml| inside(xml, item));
            }
        });
    }

    fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let instead = self.instead.as_ref().filter(|(depth, _)| *depth == self.depth);
        let instead = instead.and_then(|(_, texts)| texts.get(name)).cloned();
        if instead == Some(None) {
            return;
        }
        self.write(Event::Start(BytesStart::new(name)));
        self.depth += 1;
        match instead.flatten() {
            Some(text) => self.text(&text),
            None => inside(self),
        }
        self.depth -= 1;
        self.write(Event::End(BytesEnd::new(name)));
    }

    fn text(&mut self, text: &str) {
        self.write(Event::Text(BytesText::from_escaped(partial_escape(text))));
    }

    fn write(&mut self, event: Event) {
        self.writer.write_event(event).expect("a Vec takes every write");
    }
}
