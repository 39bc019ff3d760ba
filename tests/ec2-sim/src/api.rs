//! EC2's actions: what each checks, does and answers. Each happens wholly or not at all, but for the one exception
//! that EC2 documents.

use std::collections::HashSet;

use crate::cloud::Cloud;
use crate::describe::Describe;
use crate::fault::Refusal;
use crate::machine::Machine;
use crate::place::Place;
use crate::storage::{Told, Verb};
use crate::sts::{Assumed, Caller};
use crate::switching::Lags;

/// EC2's bound on resources in one call.
const IDS_PER_CALL: usize = 1000;
/// EC2's bound on the tags of a resource; those that begin with `aws:` do not count.
const TAGS_PER_RESOURCE: usize = 50;

/// A call, understood.
pub(crate) struct Request {
    pub(crate) place: Place,
    /// The role that asks, and its session.
    pub(crate) caller: String,
    pub(crate) ids: Vec<String>,
    pub(crate) dry_run: bool,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    Describe(Describe),
    Start,
    Stop { hibernate: bool },
    CreateTags(Vec<Tag>),
    DeleteTags(Vec<Tag>),
    DescribeRegions,
    Storage(Verb),
}

/// A tag as a call names it; one to be deleted may come without a value.
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

impl Tag {
    /// Tells whether deleting this tag deletes that one.
    fn means(&self, key: &str, value: &str) -> bool {
        self.key == key && self.value.as_ref().is_none_or(|only| only == value)
    }
}

pub(crate) enum Answer {
    /// A page, and the token for the next.
    Instances(Vec<Machine>, Option<String>),
    Changes(Vec<Change>),
    Tagged,
    Regions(Vec<String>),
    Assumed(Assumed),
    Caller(Caller),
    Storage(Told),
}

pub(crate) struct Change {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Cloud {
    /// Decides on a call and carries it out.
    pub(crate) fn answer(&mut self, request: &Request) -> Result<Answer, Refusal> {
        self.throttle(request)?;
        self.carry_out(request, &request.ids)
    }

    /// Does what a call asks for, with these machines.
    fn carry_out(&mut self, request: &Request, ids: &[String]) -> Result<Answer, Refusal> {
        if let Some(answer) = self.about_storage(request, ids) {
            return answer;
        }
        if let Action::Describe(describe) = &request.action {
            describe.check(ids)?;
        }
        self.check_ids(&request.place, ids)?;
        self.authorize(request, ids)?;
        if request.dry_run && !self.settings.ignores_dry_run {
            let message = "Request would have succeeded, but DryRun flag is set.";
            return Err(Refusal::new("DryRunOperation", message).with_status(412));
        }
        let now = self.clock.now();
        let (start_takes, stop_takes) = (self.settings.start_takes, self.settings.stop_takes);
        let lags = Lags::at(now, &self.settings);
        match &request.action {
            Action::Describe(describe) => self.describe(&request.place, ids, describe),
            Action::DescribeRegions => Ok(Answer::Regions(self.settings.regions.clone())),
            Action::Start => {
                self.check_each(ids, |machine| machine.may_start(&lags))?;
                self.check_room(&request.place, ids)?;
                Ok(self.change_each(ids, |machine| machine.start(now, start_takes)))
            }
            Action::Stop { hibernate } => {
                if let Err(no) = self.check_each(ids, |machine| machine.may_stop(*hibernate, &lags)) {
                    if no.code == "OperationNotPermitted" {
                        let protected = self.named(ids).filter(|machine| machine.stop_protected);
                        let protected: Vec<_> = protected.map(|machine| machine.id.clone()).collect();
                        self.stop_elsewhere(request, ids, &protected);
                    }
                    return Err(no);
                }
                Ok(self.change_each(ids, |machine| machine.stop(now, stop_takes, *hibernate)))
            }
            Action::CreateTags(tags) => self.create_tags(ids, tags),
            Action::DeleteTags(tags) => self.delete_tags(ids, tags),
            Action::Storage(_) => unreachable!("answered above"),
        }
    }

    /// Carries out a stop of these that is refused because of some of them, in the zones where none of those is: with
    /// partial success on, that is what EC2 does although it answers the error.
    pub(crate) fn stop_elsewhere(&mut self, request: &Request, ids: &[String], bad: &[String]) {
        if !self.settings.partial_success || !matches!(request.action, Action::Stop { .. }) {
            return;
        }
        let zones: HashSet<_> = self.named(bad).map(|machine| machine.zone.clone()).collect();
        let mut rest = ids.to_vec();
        // An unknown id stays in, and fails them all.
        rest.retain(|id| self.machine(id).is_none_or(|machine| !zones.contains(&machine.zone)));
        // The caller hears only of the first refusal.
        drop(self.carry_out(request, &rest));
    }

    fn check_each(&mut self, ids: &[String], may: impl Fn(&Machine) -> Result<(), Refusal>) -> Result<(), Refusal> {
        if ids.is_empty() {
            let message = "The request must contain the parameter InstanceId";
            return Err(Refusal::new("MissingParameter", message));
        }
        self.named(ids).try_for_each(may)
    }

    fn change_each(&mut self, ids: &[String], act: impl Fn(&mut Machine)) -> Answer {
        Answer::Changes(self.change(ids, |machine| {
            let (id, from) = (machine.id.clone(), machine.state.clone());
            act(machine);
            let to = machine.state.clone();
            Change { id, from, to }
        }))
    }

    fn create_tags(&mut self, ids: &[String], tags: &[Tag]) -> Result<Answer, Refusal> {
        check_keys(tags)?;
        let value = |tag: &Tag| tag.value.clone().unwrap_or_default();
        let new: Vec<_> = tags.iter().map(|tag| (tag.key.clone(), value(tag))).collect();
        let has_too_many = |machine: &Machine| {
            let keys: HashSet<_> = machine.tags.keys().chain(new.iter().map(|(key, _)| key)).collect();
            keys.iter().filter(|key| !key.starts_with("aws:")).count() > TAGS_PER_RESOURCE
        };
        if self.named(ids).any(has_too_many) {
            let message = "The maximum number of Tags for a resource has been reached.";
            return Err(Refusal::new("TagLimitExceeded", message));
        }
        self.change(ids, |machine| machine.tags.extend(new.clone()));
        Ok(Answer::Tagged)
    }

    fn delete_tags(&mut self, ids: &[String], tags: &[Tag]) -> Result<Answer, Refusal> {
        check_keys(tags)?;
        // Dangerous, and documented: without tags, all but AWS's own go.
        let goes = |key: &String, value: &String| match tags {
            [] => !key.starts_with("aws:"),
            [..] => tags.iter().any(|tag| tag.means(key, value)),
        };
        self.change(ids, |machine| machine.tags.retain(|key, value| !goes(key, value)));
        Ok(Answer::Tagged)
    }

    /// Refuses a call that names what EC2 does not know in this account and region.
    fn check_ids(&self, place: &Place, ids: &[String]) -> Result<(), Refusal> {
        if ids.len() > IDS_PER_CALL {
            let message = format!("A call can name {IDS_PER_CALL} resources at most");
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        if let Some(id) = ids.iter().find(|id| !is_instance_id(id)) {
            let message = format!("Invalid id: \"{id}\"");
            return Err(Refusal::new("InvalidInstanceID.Malformed", message));
        }
        let mut unknown = ids.to_vec();
        unknown.retain(|id| !self.knows(place, id));
        let message = match unknown.as_slice() {
            [] => return Ok(()),
            [id] => format!("The instance ID '{id}' does not exist"),
            ids => format!("The instance IDs '{}' do not exist", ids.join(", ")),
        };
        Err(Refusal::new("InvalidInstanceID.NotFound", message))
    }
}

fn check_keys(tags: &[Tag]) -> Result<(), Refusal> {
    if tags.iter().any(|tag| tag.key.starts_with("aws:")) {
        let message = "Tag keys starting with 'aws:' are reserved for internal use";
        return Err(Refusal::new("InvalidParameterValue", message));
    }
    Ok(())
}

fn is_instance_id(id: &str) -> bool {
    let digits = id.strip_prefix("i-").unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
