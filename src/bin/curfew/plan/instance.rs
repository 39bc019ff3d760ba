//! `curfew plan --instance`: why one instance would be switched, or not, and who could change that.

use std::process::ExitCode;

use anstyle::AnsiColor;
use chrono::{DateTime, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::hours::read::Schedule;
use ec2_curfew::instance::{EXEMPT_TAG, Exemption, Instance, InstanceId, State};
use ec2_curfew::outcome::{Reason, Skip};
use ec2_curfew::plan::{Decision, Step, decide};
use ec2_curfew::request::{Action, Regions, Request};
use ec2_curfew::targets::{self, Sighting};
use ec2_curfew::wording::tag;

use super::{PATIENCE, first_region, place, why_left_alone};
use crate::account::{Access, Account};
use crate::events::EventFile;
use crate::problem::{PERMISSIONS, Problem, is_denied};
use crate::terminal::{self, Cell, FAINT, HEADING, Row};
use crate::words;

/// What a tag that is missing does.
const SELECT: &str = "To have it selected:";

/// Answers for one instance.
pub(super) async fn run(
    event: &EventFile,
    id: &str,
    account: &Account,
    as_of: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<ExitCode, Problem> {
    let request = &event.request;
    let id = InstanceId::parse(id).ok_or_else(|| {
        Problem::new(format!("{id} is not an instance's id")).help("write it like i-0abc12345678def00")
    })?;
    let access = account.open(first_region(request)).await?;
    let looking = terminal::spinner(format!("Looking for {id} in {}", place(request, &access)));
    let sightings = targets::find(request, &access.aws, &access.home, Deadline::within(PATIENCE), id).await;
    let found = sightings.iter().find_map(|sighting| match &sighting.found {
        Ok(Some((instance, keep_out))) => Some((sighting, instance, keep_out)),
        Ok(None) | Err(_) => None,
    });
    let answer = match found {
        Some((sighting, instance, keep_out)) => {
            Ok(About { request, instance, keep_out, sighting, as_of, now }.shown(&event.name))
        }
        None => Err(not_found(request, &access, id, &sightings).await),
    };
    looking.finish_and_clear();
    terminal::print(&answer?)?;
    Ok(ExitCode::SUCCESS)
}

/// Says where an instance was looked for; then in the regions where the event doesn't look.
async fn not_found(request: &Request, access: &Access, id: InstanceId, sightings: &[Sighting]) -> Problem {
    let mut problem = Problem::new(format!("{id} is not where the event looks: {}", place(request, access)));
    for sighting in sightings {
        if let Err(trouble) = &sighting.found {
            let Sighting { account, region, .. } = sighting;
            problem =
                problem.note(format!("{account} {region} could not be asked: {}, {}", trouble.code, trouble.message));
        }
    }
    let troubles = || sightings.iter().filter_map(|sighting| sighting.found.as_ref().err());
    if troubles().any(|trouble| is_denied(&trouble.code)) {
        problem = problem.help(PERMISSIONS);
    }
    let everywhere = Request { regions: Regions::All, ..request.clone() };
    let elsewhere = match request.regions {
        Regions::All => Vec::new(),
        // Where the event looks from says which regions there are.
        Regions::Own | Regions::Named(_) => {
            targets::find(&everywhere, &access.aws, &access.home, Deadline::within(PATIENCE), id).await
        }
    };
    match elsewhere.iter().find(|sighting| matches!(sighting.found, Ok(Some(_)))) {
        Some(Sighting { account, region, .. }) => problem.help(format!(
            "it is in {region} of {account}: add {region} to the event's \"regions\", or send the event to a function there"
        )),
        None => problem.help("no other region of these accounts has it; is it another account's, or long gone?"),
    }
}

/// An instance, and what is known of it.
struct About<'a> {
    request: &'a Request,
    instance: &'a Instance,
    /// The request's filters that EC2 says don't match.
    keep_out: &'a [String],
    sighting: &'a Sighting,
    /// The moment that the event stands for.
    as_of: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl About<'_> {
    fn shown(&self, event: &str) -> String {
        let (instance, Sighting { account, region, .. }) = (self.instance, self.sighting);
        let misses = self.misses();
        let (answer, fixes) = if misses.is_empty() { self.decided() } else { self.not_selected(&misses) };
        let heading = |text: &str| Cell::new(text).styled(FAINT);
        let started = self.when(instance.launch_time);
        let mut rows: Vec<Row<2>> = vec![
            [
                heading("instance"),
                Cell::new(format!("{}, {} in {account} {}", instance.id, instance.instance_type, self.zone(region))),
            ]
            .into(),
            [heading("state"), Cell::new(format!("{}; last started {started}", instance.state))].into(),
        ];
        rows.push([heading("event"), Cell::new(format!("{event}: {}", words::sentence(self.request)))].into());
        rows.push([heading("selected"), Cell::new(if misses.is_empty() { "yes" } else { "no" })].into());
        rows.extend(misses.iter().map(|miss| Row::from([Cell::default(), Cell::new(&miss.said)])));
        rows.extend(self.facts().into_iter().map(|(what, said)| Row::from([heading(what), Cell::new(said)])));
        let name = Cell::new(instance.name().unwrap_or(instance.id.as_str())).styled(HEADING);
        let width = terminal::width();
        let answer = terminal::wrapped(&format!("{name}: {answer}"), width);
        let mut text = format!("{answer}\n{}", terminal::table(&rows, 2, width));
        let mut last = None;
        for Fix { how, command } in fixes {
            // One heading for all that it takes.
            if last.as_ref() != Some(&how) {
                text.push_str(&format!("\n{}", terminal::wrapped(&how, width)));
            }
            last = Some(how);
            // In one line, so that it can be copied.
            text.extend(command.map(|command| format!("  {command}\n")));
        }
        text
    }

    fn zone<'b>(&'b self, region: &'b str) -> &'b str {
        if self.instance.zone.is_empty() { region } else { &self.instance.zone }
    }

    fn when(&self, moment: DateTime<Utc>) -> String {
        let zone = self.request.timezone;
        format!("{} {zone}, {}", words::moment(moment, zone), words::from_now(moment, self.now))
    }

    /// Finds every part of the selection that keeps it out.
    fn misses(&self) -> Vec<Miss> {
        let (selection, tags) = (&self.request.selection, &self.instance.tags);
        let mut misses = Vec::new();
        for (key, patterns) in &selection.tags.0 {
            let matches = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            if tags.get(key).is_some_and(matches) {
                continue;
            }
            let values: Vec<&str> = patterns.iter().map(|pattern| pattern.0.as_str()).collect();
            let wanted = tag(key, &values.join("|"));
            let other_case = tags.iter().find(|(other, _)| *other != key && other.eq_ignore_ascii_case(key));
            let said = match (tags.get(key), other_case) {
                (Some(value), _) => format!("{wanted} is asked for, and it has {}", tag(key, value)),
                (None, Some((other, value))) => {
                    format!("{wanted} is asked for, and it has {}: upper and lower case count", tag(other, value))
                }
                (None, None) => format!("{wanted} is asked for, and it has no tag {key}"),
            };
            let value = values.first().filter(|value| !value.contains(['*', '?', '\\']));
            misses.push(Miss { said, fix: value.map(|value| Fix::command(SELECT, self.set_tag(key, value))) });
        }
        for name in self.keep_out {
            let values = selection.filters.get(name).map(|values| values.join("|")).unwrap_or_default();
            misses.push(Miss { said: format!("the filter {} doesn't match, EC2 says", tag(name, &values)), fix: None });
        }
        if !selection.ids.is_empty() && !selection.ids.contains(&self.instance.id) {
            misses.push(Miss { said: "it is not one of the event's instance_ids".to_owned(), fix: None });
        }
        let hours_tag = &self.request.hours_tag;
        if self.request.is_about_hours() && !selection.ids_alone() && !tags.contains_key(hours_tag) {
            // One that closes: others would do nothing.
            let closes = |(_, schedule): &(&str, &Schedule)| schedule.hours.next_edge(self.now).is_some();
            let example = self.request.schedules.named().find(closes).map_or("Mo-Fr 08:00-19:00", |(name, _)| name);
            let said = format!("it has no tag {hours_tag}, and reconcile switches only what has hours, like {example}");
            misses.push(Miss { said, fix: Some(Fix::command(SELECT, self.set_tag(hours_tag, example))) });
        }
        misses
    }

    fn not_selected(&self, misses: &[Miss]) -> (String, Vec<Fix>) {
        let red = AnsiColor::Red.on_default().bold();
        let mut fixes: Vec<Fix> = misses.iter().filter_map(|miss| miss.fix.clone()).collect();
        if fixes.len() < misses.len() {
            fixes.push(Fix::by("Whoever writes the event can have it selected."));
        }
        (format!("{red}not selected{red:#}, the event doesn't touch it"), fixes)
    }

    /// Says what the event would do about it, and who could change that.
    fn decided(&self) -> (String, Vec<Fix>) {
        let (stop, start) = (AnsiColor::Yellow.on_default().bold(), AnsiColor::Green.on_default().bold());
        match decide(self.request, self.instance, self.as_of) {
            Decision::Do(task) | Decision::Await(task) => match task.step {
                Step::Stop { hibernate } => {
                    let word = if hibernate { "hibernated" } else { "stopped" };
                    let fix = Fix::command("To keep it on, until the tag goes:", self.set_tag(EXEMPT_TAG, "true"));
                    (format!("{stop}would be {word}{stop:#}"), vec![fix])
                }
                Step::Start => {
                    let fix = Fix::command("To keep it off, until the tag goes:", self.set_tag(EXEMPT_TAG, "true"));
                    (format!("{start}would be started{start:#}"), vec![fix])
                }
            },
            Decision::Follow => ("is being started already".to_owned(), Vec::new()),
            Decision::Mark | Decision::Unmark(_) => self.left_alone(&Skip::because(Reason::AsScheduled)),
            Decision::Leave(skip) => self.left_alone(&skip),
            Decision::Refuse { code, message } => {
                (format!("{HEADING}can't be switched{HEADING:#}, {code}: {message}"), Vec::new())
            }
        }
    }

    /// Whether it is off in open hours that start nothing.
    fn waits_for_people(&self) -> bool {
        let tagged = self.instance.tags.get(&self.request.hours_tag).filter(|_| self.request.is_about_hours());
        let found = tagged.and_then(|text| self.request.schedules.at(text, self.as_of).ok());
        found.is_some_and(|(schedule, state)| state.open && !schedule.start) && self.instance.state == State::Stopped
    }

    fn left_alone(&self, skip: &Skip) -> (String, Vec<Fix>) {
        if skip.reason == Reason::AsScheduled && self.waits_for_people() {
            let why = "its hours are open, but only people start it";
            let fix =
                "Whoever may start it can do so now; whoever writes the event's hours can have openings start it.";
            let answer = format!("{HEADING}left alone{HEADING:#}, {}: {why}", skip.reason.as_str());
            return (answer, vec![Fix::by(fix)]);
        }
        let mut why = why_left_alone(skip, self.request, self.now);
        if skip.message.is_none() && skip.until.is_none() {
            why = format!("{why}: {}", words::reason(skip.reason));
        }
        (format!("{HEADING}left alone{HEADING:#}, {}", Cell::new(why)), self.fix(skip).into_iter().collect())
    }

    /// Says who could change that it is left alone, and how.
    fn fix(&self, skip: &Skip) -> Option<Fix> {
        let (request, hours_tag) = (self.request, &self.request.hours_tag);
        let by_hand = |how: &str| Some(Fix::by(how));
        match skip.reason {
            Reason::Exempt => match request.except_tags.any_match(&self.instance.tags) {
                Some(key) => Some(Fix::command(
                    "Whoever writes the event's except_tags can change it, and whoever may tag the instance:",
                    self.delete_tag(key),
                )),
                None => Some(Fix::command("To have it switched like the others:", self.delete_tag(EXEMPT_TAG))),
            },
            Reason::HasHours => Some(Fix::command(
                format!(
                    "An event with \"action\": \"reconcile\" keeps it to its {hours_tag}; plan that one. To leave it to this one:"
                ),
                self.delete_tag(hours_tag),
            )),
            Reason::AutoscalingMember => by_hand("Scale its group by a scheduled action instead."),
            Reason::ServiceManaged => by_hand("Only the service that runs it can switch it off for good."),
            Reason::InstanceStoreRoot => {
                by_hand("Nobody can stop it; one launched from an image on EBS can be stopped.")
            }
            Reason::StartedSince if request.is_about_hours() => {
                by_hand("Whoever started it can stop it; else that is done when its hours close next.")
            }
            Reason::StartedSince => by_hand("Whoever started it can stop it; else the next stop does."),
            Reason::StoppedSince => by_hand("Whoever stopped it can start it: what people switch off stays off."),
            Reason::NotMarked => by_hand("Start it by hand; a stop with \"remember\" marks it for the next start."),
            Reason::BadTag => {
                let meant = skip.bad_tag.as_ref().and_then(|bad| bad.write()).unwrap_or("Mo-Fr 08:00-19:00");
                Some(Fix::command("To give it hours that can be read:", self.set_tag(hours_tag, meant)))
            }
            Reason::Tried => by_hand("The function's log says what EC2 answered when it was tried."),
            Reason::AlreadyDone | Reason::AsScheduled | Reason::Moving => None,
            // Nobody can, or only EC2 tells.
            Reason::Gone | Reason::SpotOneTime | Reason::StopProtected | Reason::UnknownState => None,
            // Only snapshots have these reasons.
            Reason::Kept(_) => None,
        }
    }

    /// Lists what else decides about it: its hours, its mark, its exemption, who controls it.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let (request, instance) = (self.request, self.instance);
        let mut facts = Vec::new();
        let tagged = instance.tags.get(&request.hours_tag);
        if let Some(text) = tagged {
            facts.push(("hours", self.hours(text)));
        }
        match instance.exemption(request.timezone) {
            None => {}
            Some(Exemption::Always) => facts.push(("exempt", "always".to_owned())),
            Some(Exemption::Until(until)) => facts.push(("exempt", format!("until {}", self.when(until)))),
            Some(Exemption::Unclear(value)) => facts.push(("exempt", format!("{value:?}, which says nothing clear"))),
        }
        if let Some(mark) = instance.mark() {
            let counts = match (instance.is_marked(), &instance.state) {
                (true, State::Running) => "and it runs: a stop under way, or one that died",
                (true, _) => "so that a start with \"remember\" starts it",
                (false, _) => "void, it was started since",
            };
            facts.push(("mark", format!("Curfew stopped it {}; {counts}", self.when(mark.at()))));
        }
        if let Some(who) = instance.tags.get("aws:autoscaling:groupName") {
            facts.push(("controller", format!("the Auto Scaling group {who}")));
        } else if let Some(who) = instance.controller() {
            facts.push(("controller", who.to_owned()));
        }
        if let Some(reason) = instance.state_reason.as_ref().filter(|_| instance.state != State::Running) {
            facts.push(("EC2 says", reason.to_string()));
        }
        facts
    }

    fn hours(&self, text: &str) -> String {
        let written = tag(&self.request.hours_tag, text);
        if !matches!(self.request.action, Action::Reconcile { .. }) {
            return written;
        }
        let (schedule, state) = match self.request.schedules.at(text, self.now) {
            Ok(found) => found,
            Err(bad) => return bad.to_string(),
        };
        let zone = schedule.hours.zone();
        let at = |moment| format!("{}, {}", words::moment(moment, zone), words::from_now(moment, self.now));
        let now = if state.open { "open" } else { "closed" };
        let since = state.edge.map_or_else(String::new, |edge| format!(" since {}", words::moment(edge, zone)));
        let next = schedule.hours.next_edge(self.now).map_or_else(String::new, |edge| {
            let word = match (edge.opens, schedule.start) {
                (true, true) => "opens",
                (true, false) => "opens, which starts nothing,",
                (false, _) => "closes",
            };
            format!("; {word} {}", at(edge.at))
        });
        let by_people = if schedule.start { "" } else { "; \"start\": false, only people start it" };
        format!("{written}: {now}{since}{next} ({zone}){by_people}")
    }

    fn set_tag(&self, key: &str, value: &str) -> String {
        let (id, region) = (self.instance.id, &self.sighting.region);
        format!(
            "aws ec2 create-tags --region {region} --resources {id} --tags {}",
            quoted(&format!("Key={},Value={}", shorthand(key), shorthand(value)))
        )
    }

    fn delete_tag(&self, key: &str) -> String {
        let (id, region) = (self.instance.id, &self.sighting.region);
        format!(
            "aws ec2 delete-tags --region {region} --resources {id} --tags {}",
            quoted(&format!("Key={}", shorthand(key)))
        )
    }
}

/// Why the event doesn't select it, and what would change that.
struct Miss {
    said: String,
    fix: Option<Fix>,
}

/// Who could change something, and how.
#[derive(Clone)]
struct Fix {
    how: String,
    command: Option<String>,
}

impl Fix {
    fn by(how: impl Into<String>) -> Self {
        Self { how: how.into(), command: None }
    }

    fn command(how: impl Into<String>, command: String) -> Self {
        Self { how: how.into(), command: Some(command) }
    }
}

/// Writes a text for the AWS CLI's shorthand, which takes what stands in double quotes as it is.
fn shorthand(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([',', '"', '\'', '=', '[', ']', '{', '}', '\\']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "=,.:_-/@+".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
