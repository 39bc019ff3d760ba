//! `curfew takeover`: schedules of AWS Instance Scheduler or Cloud Custodian → the event of a reconcile; and a
//! comparison of both that proves the event right.

mod custodian;
mod event;
mod scheduler;
mod shadow;
mod week;
mod yaml;

use std::collections::BTreeMap;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::{Ec2, Error};
use ec2_curfew::instance::State;
use serde_json::{Value, json};

use self::custodian::{Policies, Tagged};
use self::event::{Event, Notes};
use self::scheduler::Table;
use crate::account::{Access, Account};
use crate::arguments;
use crate::aws_json::{Client, DYNAMODB};
use crate::problem::Problem;
use crate::terminal;

/// How long after an edge Instance Scheduler may differ: it acts every five minutes, and EC2 takes a minute or two to
/// switch.
const SCHEDULER_SETTLES: TimeDelta = TimeDelta::minutes(12);
/// How long after an edge Custodian may differ: its policies run once an hour, at any minute; and the same 12 minutes.
const CUSTODIAN_SETTLES: TimeDelta = TimeDelta::minutes(72);
/// How long reading tags may take: those of a large fleet take a minute.
const PATIENCE: Duration = Duration::from_secs(300);

/// Take over another tool's schedules, as the event of a reconcile
///
/// What doesn't carry over is named on standard error, with why, and what to do
/// about it. With --shadow, nothing is written: what the event would do now is
/// compared with what runs, so that a week without a difference is the proof.
///
/// Exit status: 0, all is carried over, or there is no difference; 1, something
/// is left out, or there are differences; 2, it could not be done.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    InstanceScheduler(SchedulerArgs),
    Custodian(CustodianArgs),
}

/// Take over AWS Instance Scheduler's schedules and periods
///
/// From its configuration table, which needs dynamodb:Scan, or from files: what
/// `aws dynamodb scan --table-name …` prints, or what its own command line prints
/// for describe-schedules and describe-periods (give both).
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct SchedulerArgs {
    /// Exported configuration; - is standard input
    #[arg(value_name = "FILE.json", required_unless_present_any = ["table", "stack"], conflicts_with_all = ["table", "stack"])]
    files: Vec<PathBuf>,
    /// Its configuration table
    #[arg(long, value_name = "NAME", conflicts_with = "stack")]
    table: Option<String>,
    /// Its CloudFormation stack: needs dynamodb:ListTables, too
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// Its tag [default: the configuration's, else Schedule]
    #[arg(long, value_name = "KEY")]
    tag: Option<String>,
    /// Of schedules that say none [default: the configuration's, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = arguments::zone)]
    timezone: Option<Tz>,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    account: Account,
}

/// Take over Cloud Custodian's onhour and offhour policies
///
/// From the policy file and the tags that instances have, which needs
/// ec2:DescribeInstances.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct CustodianArgs {
    /// Policy files; - is standard input
    #[arg(value_name = "POLICY.yml", required = true)]
    files: Vec<PathBuf>,
    /// What `aws ec2 describe-instances` prints, in place of asking EC2
    #[arg(long, value_name = "FILE.json")]
    instances: Option<PathBuf>,
    /// The tag, where the policies are about several
    #[arg(long, value_name = "KEY")]
    tag: Option<String>,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    account: Account,
}

#[derive(Debug, clap::Args)]
struct Out {
    /// Write the event to a file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compare what the event would do now with what runs: for cron
    #[arg(long, conflicts_with = "output")]
    shadow: bool,
    /// With --shadow: as JSON, on one line
    #[arg(long, requires = "shadow")]
    json: bool,
}

/// Takes over another tool's schedules; its exit status is 2 for any problem.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let done = match args.from {
        From::InstanceScheduler(args) => from_scheduler(args).await,
        From::Custodian(args) => from_custodian(args).await,
    };
    // Status 1 means that something was left out, or differs.
    Ok(done.unwrap_or_else(|problem| {
        problem.tell();
        ExitCode::from(2)
    }))
}

async fn from_scheduler(args: SchedulerArgs) -> Result<ExitCode, Problem> {
    let mut table = Table::default();
    for path in &args.files {
        let document = read_json(path)?;
        table.add(document).map_err(|why| {
            let what = format!("{} is no configuration of Instance Scheduler: {why}", path.display());
            Problem::new(what).help("give what `aws dynamodb scan --table-name <its ConfigTable>` prints, or describe-schedules and describe-periods")
        })?;
    }
    let from = args.table.as_deref().or(args.stack.as_deref()).unwrap_or("what was given");
    if args.files.is_empty() {
        scan(&args, &mut table).await?;
    }
    if table.is_empty() {
        let help =
            "its configuration table, or what `aws dynamodb scan` prints of it, holds items of the type schedule";
        return Err(Problem::new(format!("there is no schedule in {from}")).help(help));
    }
    let mut notes = Notes::default();
    let event = table.event(args.tag.as_deref(), args.timezone, &mut notes)?;
    finish(&args.out, &args.account, &event, &notes, SCHEDULER_SETTLES).await
}

async fn from_custodian(args: CustodianArgs) -> Result<ExitCode, Problem> {
    let (mut policies, mut notes) = (Policies::default(), Notes::default());
    for path in &args.files {
        let text = read(path)?;
        if text.trim().is_empty() {
            return Err(Problem::new(format!("{} is empty", path.display())));
        }
        let file = yaml::read(&text).and_then(|file| policies.add(&file, &mut notes));
        file.map_err(|why| Problem::new(format!("{} is no policy file of Cloud Custodian: {why}", path.display())))?;
    }
    if policies.is_empty() {
        anstream::eprint!("{}", notes.write());
        let help = "a policy on ec2 with a filter of the type onhour or offhour, and the action start or stop, is one";
        return Err(Problem::new("there is no policy on hours that can be carried over").help(help));
    }
    let instances = match &args.instances {
        Some(path) => instances_of(&read_json(path)?).ok_or_else(|| {
            Problem::new(format!("{} is not what `aws ec2 describe-instances` prints", path.display()))
        })?,
        None => look_at_tags(&args.account.open(None).await?).await?,
    };
    let event = policies.event(args.tag.as_deref(), &instances, &mut notes)?;
    finish(&args.out, &args.account, &event, &notes, CUSTODIAN_SETTLES).await
}

/// Writes the event, or with `--shadow` compares it with what runs.
async fn finish(
    out: &Out,
    account: &Account,
    event: &Event,
    notes: &Notes,
    settling: TimeDelta,
) -> Result<ExitCode, Problem> {
    if event.hours.is_empty() {
        anstream::eprint!("{}", notes.write());
        return Err(Problem::new("nothing is left to carry over"));
    }
    let request = event.request()?;
    if out.shadow {
        return shadow::compare(&request, &account.open(None).await?, settling, out.json).await;
    }
    match &out.output {
        None => terminal::print(&event.write()?)?,
        Some(path) => std::fs::write(path, event.write()?)
            .map_err(|error| Problem::new(format!("can't write {}: {error}", path.display())))?,
    }
    anstream::eprint!("{}", notes.write());
    Ok(if notes.count_left_out() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &Path) -> Result<String, Problem> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => stdin().lock().read_to_string(&mut text).map(|_| text),
        false => std::fs::read_to_string(path),
    };
    read.map_err(|error| Problem::new(format!("can't read {}: {error}", path.display())))
}

fn read_json(path: &Path) -> Result<Value, Problem> {
    let text = read(path)?;
    if text.trim().is_empty() {
        return Err(Problem::new(format!("{} is empty", path.display())));
    }
    serde_json::from_str(&text).map_err(|error| Problem::new(format!("{} is no JSON: {error}", path.display())))
}

/// Reads all items of the configuration table from DynamoDB.
async fn scan(args: &SchedulerArgs, table: &mut Table) -> Result<(), Problem> {
    let access = args.account.open(None).await?;
    let dynamodb = Client::new(access.aws.config(), DYNAMODB, None)
        .map_err(|error| refused("DynamoDB can't be asked", &error, "dynamodb:Scan"))?;
    let _progress = terminal::spinner("reading the configuration table");
    let name = match (&args.table, &args.stack) {
        (Some(table), _) => table.clone(),
        (None, stack) => table_of(&dynamodb, stack.as_deref().unwrap_or_default()).await?,
    };
    let mut from = Value::Null;
    loop {
        let mut input = json!({ "TableName": name });
        if !from.is_null() {
            input["ExclusiveStartKey"] = from;
        }
        let mut page = match dynamodb.call("Scan", &input).await {
            Ok(page) => page,
            Err(error) if error.code == "ResourceNotFoundException" => {
                let what = format!("there is no table {name} in {}", dynamodb.region());
                return Err(
                    Problem::new(what).help("--stack finds it by its stack's name; --region and --profile say where")
                );
            }
            Err(error) => return Err(refused(&format!("DynamoDB does not show {name}"), &error, "dynamodb:Scan")),
        };
        from = page["LastEvaluatedKey"].take();
        table.add(page).map_err(|why| Problem::new(format!("DynamoDB's answer can't be read: {why}")))?;
        if from.is_null() {
            return Ok(());
        }
    }
}

/// Finds a stack's configuration table, which CloudFormation names `<stack>-ConfigTable-<suffix>`.
async fn table_of(dynamodb: &Client, stack: &str) -> Result<String, Problem> {
    let (mut from, mut found) = (Value::Null, Vec::new());
    loop {
        let input = if from.is_null() { json!({}) } else { json!({ "ExclusiveStartTableName": from }) };
        let mut page = dynamodb
            .call("ListTables", &input)
            .await
            .map_err(|error| refused("DynamoDB does not list its tables", &error, "dynamodb:ListTables"))?;
        let names = page["TableNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(names.filter(|name| name.starts_with(&format!("{stack}-ConfigTable"))).map(str::to_owned));
        from = page["LastEvaluatedTableName"].take();
        if from.is_null() {
            break;
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let what = format!("no table in {} begins with {stack}-ConfigTable", dynamodb.region());
            Err(Problem::new(what).help("--table names it; --region and --profile say where the stack is"))
        }
        several => {
            Err(Problem::new(format!("several tables could be meant: {}", several.join(", ")))
                .help("--table says which"))
        }
    }
}

/// Reads the tags of all instances in the region.
async fn look_at_tags(access: &Access) -> Result<Vec<Tagged>, Problem> {
    let region = region(access)?;
    let _progress = terminal::spinner(format!("reading tags in {region}"));
    let alive = [State::Pending, State::Running, State::Stopping, State::Stopped].map(|state| state.to_string());
    let filters = vec![("instance-state-name".to_owned(), alive.to_vec())];
    let tagged = |instance: ec2_curfew::instance::Instance| {
        let tags = instance.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(Tagged { id: instance.id.to_string(), tags: tags.collect() })
    };
    let found = access.aws.ec2(&region).matching(&filters, tagged, Deadline::within(PATIENCE)).await;
    found.map_err(|error| {
        refused(&format!("EC2 in {region} does not show its instances"), &error, "ec2:DescribeInstances")
            .help("or give what `aws ec2 describe-instances` prints, with --instances")
    })
}

/// Reads the output of `aws ec2 describe-instances`, without terminated instances; none if it is something else.
fn instances_of(answer: &Value) -> Option<Vec<Tagged>> {
    let instances = answer["Reservations"].as_array()?.iter().filter_map(|it| it["Instances"].as_array()).flatten();
    let alive = instances.filter(|it| it["State"]["Name"] != "terminated");
    let tagged = |instance: &Value| {
        let tags = instance["Tags"].as_array().into_iter().flatten();
        let tags = tags.filter_map(|tag| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str()?.to_owned())));
        Some(Tagged { id: instance["InstanceId"].as_str()?.to_owned(), tags: tags.collect::<BTreeMap<_, _>>() })
    };
    Some(alive.filter_map(tagged).collect())
}

/// Returns a text from elsewhere with its control characters escaped, which could move the cursor or colour the
/// terminal.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(plain).collect()
}

fn region(access: &Access) -> Result<String, Problem> {
    let region = access.aws.own_region().map(str::to_owned);
    region.ok_or_else(|| Problem::new("no region is given").help("write --region, or set AWS_REGION"))
}

/// Builds the problem that AWS refused a call, or didn't answer, with what to do about it.
pub(crate) fn refused(what: &str, error: &Error, permission: &str) -> Problem {
    let problem = Problem::new(format!("{what}: {error}"));
    match error.code.as_str() {
        code if code.contains("Expired")
            || code.contains("UnrecognizedClient")
            || code.contains("InvalidClientToken") =>
        {
            problem.help("sign in again, or choose other credentials with --profile")
        }
        "NotSent" => {
            problem.help("give credentials and a region as to the AWS CLI: --profile, --region, or the environment")
        }
        code => problem.help_if_denied(code, format!("these credentials need {permission}")),
    }
}
