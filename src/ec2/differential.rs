//! A differential test: from the same answer, the SDK's parser and [`page`] must read the same instances.
//!
//! The answers are random within what XML allows and EC2 might send: every way to write a character, empty, missing and
//! unknown elements, comments. The SDK reads them over HTTP, as it reads EC2's. The conversion from its types to ours
//! is written a second time here, so that a mistake would have to be made twice to go unnoticed.

use std::fmt::Write;

use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::{Client, Config, types};
use chrono::DateTime;
use ec2_sim::{Fault, Sim};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::page::{self, Page, Words};
use crate::instance::{Instance, InstanceId, RootDevice, State, StateReason};

/// How many answers are compared; each holds several instances.
const CASES: usize = 400;

/// A piece of an answer: an element with its children, or with a text and the ways to write its characters.
#[derive(Clone, Debug)]
enum Xml {
    Element(String, Vec<Xml>),
    Text(String, String, Vec<Spelling>),
    /// Written as it is; both parsers must skip it.
    Between(&'static str),
}

/// How a character is written.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    /// As itself, or as an entity where XML requires one.
    Plain,
    Decimal,
    Hexadecimal,
    /// As a named entity, if there is one.
    Named,
}

impl Xml {
    fn write(&self, answer: &mut String) {
        match self {
            Self::Between(text) => answer.push_str(text),
            Self::Element(name, children) if children.is_empty() => write!(answer, "<{name}/>").expect("a String"),
            Self::Element(name, children) => {
                write!(answer, "<{name}>").expect("a String");
                children.iter().for_each(|child| child.write(answer));
                write!(answer, "</{name}>").expect("a String");
            }
            Self::Text(name, text, spellings) => {
                write!(answer, "<{name}>").expect("a String");
                for (n, letter) in text.chars().enumerate() {
                    spell(letter, spellings.get(n % spellings.len().max(1)).copied(), answer);
                }
                write!(answer, "</{name}>").expect("a String");
            }
        }
    }
}

fn spell(letter: char, spelling: Option<Spelling>, answer: &mut String) {
    let name = match letter {
        '&' => Some("amp"),
        '<' => Some("lt"),
        '>' => Some("gt"),
        '"' => Some("quot"),
        '\'' => Some("apos"),
        _ => None,
    };
    // XML forbids "]]>" in a text: the SDK's parser would stop there and silently drop the rest.
    let must = matches!(letter, '&' | '<' | '\r') || (letter == '>' && answer.ends_with("]]"));
    match (spelling.unwrap_or(Spelling::Plain), name) {
        (Spelling::Decimal, _) => write!(answer, "&#{};", u32::from(letter)),
        (Spelling::Hexadecimal, _) => write!(answer, "&#x{:x};", u32::from(letter)),
        (Spelling::Plain, None) if must => write!(answer, "&#{};", u32::from(letter)),
        (Spelling::Named, Some(name)) => write!(answer, "&{name};"),
        (Spelling::Plain, Some(name)) if must => write!(answer, "&{name};"),
        (Spelling::Plain | Spelling::Named, _) => write!(answer, "{letter}"),
    }
    .expect("a String takes every write");
}

fn spellings() -> impl Strategy<Value = Vec<Spelling>> {
    use Spelling::{Decimal, Hexadecimal, Named, Plain};
    vec(select(vec![Plain, Plain, Plain, Plain, Named, Decimal, Hexadecimal]), 1..5)
}

/// A tag's text as people may write it: characters of any script, and those with a meaning in XML.
fn words() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "",
        " ",
        "  x ",
        "<b>",
        "&amp;",
        "a & b",
        "]]>",
        "\"'",
        "ü",
        "日本",
        "👩‍💻",
        "\t",
        "\n",
        "a\r\nb",
        "yes",
        "{}",
    ]);
    prop_oneof![2 => odd.prop_map(str::to_owned), 3 => "[ -~]{0,20}", 1 => "\\PC{0,12}"]
}

fn text(name: &'static str, texts: impl Strategy<Value = String>) -> impl Strategy<Value = Xml> {
    (texts, spellings()).prop_map(move |(text, spellings)| Xml::Text(name.into(), text, spellings))
}

fn one_of(name: &'static str, texts: &'static [&'static str]) -> impl Strategy<Value = Xml> {
    text(name, select(texts).prop_map(str::to_owned))
}

fn perhaps(xml: impl Strategy<Value = Xml>) -> impl Strategy<Value = Vec<Xml>> {
    option::weighted(0.8, xml).prop_map(|xml| xml.into_iter().collect())
}

/// What may be between elements without meaning anything.
fn between() -> impl Strategy<Value = Xml> {
    select(vec!["", "", "\n  ", "<!-- a comment -->", "<!-- <instanceId>i-00000000</instanceId> -->", "<?odd thing?>"])
        .prop_map(Xml::Between)
}

/// Elements that neither parser knows, with anything in them.
fn unknown() -> impl Strategy<Value = Xml> {
    let names = select(vec!["futureThing", "instanceid", "tagset", "newSet", "x.y-z"]);
    let leaf = (names.clone(), words(), spellings())
        .prop_map(|(name, text, spellings)| Xml::Text(name.into(), text, spellings));
    let cdata = select(vec!["<odd><![CDATA[<instanceId>i-1</instanceId>]]></odd>", "<odd a=\"b &gt; c\" d='&lt;'/>"]);
    prop_oneof![4 => leaf, 1 => cdata.prop_map(Xml::Between)].prop_recursive(3, 12, 4, move |inner| {
        (names.clone(), vec(inner, 0..4)).prop_map(|(name, children)| Xml::Element(name.into(), children))
    })
}

/// Elements that the SDK reads and we don't; some contain elements with the same names as ours.
fn others() -> impl Strategy<Value = Xml> {
    let tag = || {
        (text("key", words()), text("value", words()))
            .prop_map(|(key, value)| Xml::Element("item".into(), vec![key, value]))
    };
    let tags = vec(tag(), 0..3).prop_map(|tags| Xml::Element("tagSet".into(), tags));
    let network = (tags, one_of("status", &["in-use", "odd"])).prop_map(|(tags, status)| {
        let item = Xml::Element("item".into(), vec![status, tags]);
        Xml::Element("networkInterfaceSet".into(), vec![item])
    });
    prop_oneof![
        one_of("imageId", &["ami-1", ""]),
        one_of("privateDnsName", &["", "ip-10-0-0-1.ec2.internal"]),
        text("reason", words()),
        one_of("amiLaunchIndex", &["0", "7"]),
        network,
        one_of("architecture", &["x86_64", "arm64", "riscv"]),
    ]
}

fn states() -> impl Strategy<Value = Xml> {
    let name = one_of("name", &["pending", "running", "stopping", "stopped", "shutting-down", "terminated", "odd"]);
    (perhaps(one_of("code", &["0", "16", "80"])), name).prop_map(|(mut children, name)| {
        children.push(name);
        Xml::Element("instanceState".into(), children)
    })
}

fn tag_set() -> impl Strategy<Value = Xml> {
    let tag = (text("value", words()), spellings(), vec(unknown(), 0..2), any::<bool>());
    // Keys are unique, as in EC2.
    btree_map(words(), tag, 0..6).prop_map(|tags| {
        let items = tags.into_iter().map(|(key, (value, spellings, more, first))| {
            let key = Xml::Text("key".into(), key, spellings);
            let pair = if first { vec![key, value] } else { vec![value, key] };
            Xml::Element("item".into(), pair.into_iter().chain(more).collect())
        });
        Xml::Element("tagSet".into(), items.collect())
    })
}

fn group(name: &'static str, children: impl Strategy<Value = Vec<Vec<Xml>>>) -> impl Strategy<Value = Xml> {
    children.prop_map(move |children| Xml::Element(name.into(), children.concat()))
}

fn instances() -> impl Strategy<Value = Xml> {
    let id = prop_oneof!["i-[0-9a-f]{17}", "i-[0-9a-f]{8}"];
    let launched = select(vec!["2026-11-20T18:59:59.000Z", "2026-11-20T18:59:59Z", "2026-02-28T00:00:00.123Z"]);
    let known = (
        text("instanceId", id),
        states(),
        text("launchTime", launched.prop_map(str::to_owned)),
        perhaps(one_of("instanceType", &["t3.micro", "x99.odd", ""])),
        perhaps(group(
            "placement",
            (perhaps(one_of("availabilityZone", &["us-east-1a", ""])), perhaps(one_of("tenancy", &["default"])))
                .prop_map(|(a, b)| vec![a, b]),
        )),
        perhaps(group(
            "stateReason",
            (perhaps(text("code", words())), perhaps(text("message", words()))).prop_map(|(a, b)| vec![a, b]),
        )),
        perhaps(one_of("rootDeviceType", &["ebs", "instance-store", "odd", ""])),
        perhaps(one_of("instanceLifecycle", &["spot", "scheduled", "odd"])),
        perhaps(group("hibernationOptions", perhaps(one_of("configured", &["true", "false"])).prop_map(|a| vec![a]))),
        perhaps(group(
            "operator",
            (perhaps(one_of("managed", &["true", "false"])), perhaps(text("principal", words())))
                .prop_map(|(a, b)| vec![a, b]),
        )),
        perhaps(tag_set()),
    );
    let known = known.prop_map(|(id, state, launched, a, b, c, d, e, f, g, h)| {
        [vec![id, state, launched], a, b, c, d, e, f, g, h].concat()
    });
    let more = vec(prop_oneof![unknown(), others(), between()], 0..6);
    (known, more)
        .prop_map(|(known, more)| once_each([known, more].concat()))
        .prop_shuffle()
        .prop_map(|children| Xml::Element("item".into(), children))
}

/// Leaves out all but the first element of each name: EC2 sends no element twice.
fn once_each(mut children: Vec<Xml>) -> Vec<Xml> {
    let mut seen = std::collections::BTreeSet::new();
    children.retain(|child| match child {
        Xml::Element(name, _) | Xml::Text(name, ..) => seen.insert(name.clone()),
        Xml::Between(_) => true,
    });
    children
}

fn answers() -> impl Strategy<Value = String> {
    let reservation =
        (vec(instances(), 0..4), vec(prop_oneof![unknown(), between()], 0..3)).prop_map(|(shown, more)| {
            let shown = Xml::Element("instancesSet".into(), shown);
            Xml::Element("item".into(), once_each([more, vec![shown]].concat()))
        });
    let token = perhaps(text("nextToken", prop_oneof![Just(String::new()), words()]));
    let rest = vec(prop_oneof![unknown(), between()], 0..3);
    let start = select(vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">",
        "<DescribeInstancesResponse>",
        "<!-- x --><DescribeInstancesResponse a='b'>",
    ]);
    (start, vec(reservation, 0..4), token, rest).prop_map(|(start, reservations, token, rest)| {
        let mut answer = start.to_owned();
        let reservations = vec![Xml::Element("reservationSet".into(), reservations)];
        once_each([rest, reservations, token].concat()).iter().for_each(|child| child.write(&mut answer));
        answer + "</DescribeInstancesResponse>"
    })
}

/// Builds the SDK's client, and an EC2 that gives it whatever answer the test sets.
async fn sdk() -> (Sim, Client) {
    let sim = Sim::start().await;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIDTEST", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(sim.url())
        .build();
    (sim, Client::from_conf(config))
}

async fn by_the_sdk(sim: &Sim, client: &Client, answer: &str) -> Result<DescribeInstancesOutput, String> {
    sim.clear_faults();
    sim.fault(Fault::answer("DescribeInstances", 200, answer));
    client.describe_instances().send().await.map_err(|error| format!("{error:?}"))
}

/// Converts what the SDK has read to our types.
fn in_our_types(page: &DescribeInstancesOutput) -> Result<Page, &'static str> {
    let shown = page.reservations().iter().flat_map(types::Reservation::instances);
    Ok(Page {
        instances: shown.map(instance).collect::<Result<_, _>>()?,
        next_token: page.next_token().filter(|token| !token.is_empty()).map(str::to_owned),
    })
}

fn instance(shown: &types::Instance) -> Result<Instance, &'static str> {
    let launched = shown.launch_time().and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()));
    let state = shown.state().and_then(types::InstanceState::name).ok_or("the SDK has read no state")?;
    let reason = shown.state_reason().and_then(|reason| {
        let message = reason.message().unwrap_or_default().to_owned();
        Some(StateReason { code: reason.code()?.to_owned(), message }.into())
    });
    let managed = shown.operator().filter(|operator| operator.managed() == Some(true));
    Ok(Instance {
        id: shown.instance_id().and_then(InstanceId::parse).ok_or("the SDK has read no id")?,
        tags: shown.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default()))).collect(),
        state: State::parse(state.as_str()),
        state_reason: reason,
        launch_time: launched.ok_or("the SDK has read no launch time")?,
        instance_type: shown.instance_type().map_or("", types::InstanceType::as_str).into(),
        zone: shown.placement().and_then(types::Placement::availability_zone).unwrap_or_default().into(),
        root_device: match shown.root_device_type().map(types::DeviceType::as_str) {
            Some("instance-store") => RootDevice::InstanceStore,
            Some(_) | None => RootDevice::Ebs,
        },
        spot: shown.instance_lifecycle() == Some(&types::InstanceLifecycleType::Spot),
        hibernation: shown.hibernation_options().and_then(types::HibernationOptions::configured) == Some(true),
        operator: managed.map(|operator| operator.principal().unwrap_or("an AWS service").into()),
    })
}

/// Returns how many instances an answer holds, if both parsers read the same ones.
///
/// # Errors
/// The first difference.
async fn compare(sim: &Sim, client: &Client, answer: &str) -> Result<usize, String> {
    let theirs = by_the_sdk(sim, client, answer).await?;
    let theirs = in_our_types(&theirs)?;
    let ours = page::read(answer.as_bytes(), &mut Words::default()).map_err(|page::Broken(why)| why)?;
    if ours.next_token != theirs.next_token {
        return Err(format!("{:?} is not {:?}", ours.next_token, theirs.next_token));
    }
    if ours.instances.len() != theirs.instances.len() {
        return Err(format!("{} instances are not {}", ours.instances.len(), theirs.instances.len()));
    }
    match ours.instances.iter().zip(&theirs.instances).find(|(ours, theirs)| ours != theirs) {
        Some((ours, theirs)) => Err(format!("{ours:#?} is not {theirs:#?}")),
        None => Ok(ours.instances.len()),
    }
}

#[tokio::test]
async fn the_sdks_parser_and_ours_read_the_same_instances() {
    let (sim, client) = sdk().await;
    let mut runner = TestRunner::deterministic();
    let mut instances = 0;
    for _ in 0..CASES {
        let mut tree = answers().new_tree(&mut runner).expect("an answer");
        match compare(&sim, &client, &tree.current()).await {
            Ok(count) => instances += count,
            Err(mut why) => {
                let mut smallest = tree.current();
                while tree.simplify() {
                    while let Err(still) = compare(&sim, &client, &tree.current()).await {
                        (why, smallest) = (still, tree.current());
                        if !tree.simplify() {
                            break;
                        }
                    }
                    if !tree.complicate() {
                        break;
                    }
                }
                panic!("{why}\n{smallest}");
            }
        }
    }
    assert!(instances > 2 * CASES, "only {instances} instances");
}

#[tokio::test]
async fn a_text_with_markup_in_it_is_read_as_the_sdk_reads_it_or_not_at_all() {
    let (sim, client) = sdk().await;
    let mut refused = 0;
    for odd in ["<![CDATA[yes]]>", "y<![CDATA[e]]>s", "<!-- x -->yes", "ye<!-- x -->s", "yes<?odd?>", "<b>yes</b>"] {
        let answer = format!(
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-12345678</instanceId>\
             <instanceState><name>running</name></instanceState><launchTime>2026-11-20T18:59:59Z</launchTime>\
             <tagSet><item><key>curfew:exempt</key><value>{odd}</value></item></tagSet></item></instancesSet></item>\
             </reservationSet></DescribeInstancesResponse>"
        );
        match page::read(answer.as_bytes(), &mut Words::default()) {
            Err(_) => refused += 1,
            Ok(ours) => {
                let theirs = by_the_sdk(&sim, &client, &answer).await.unwrap_or_else(|error| panic!("{odd}: {error}"));
                let theirs = in_our_types(&theirs).expect("an instance");
                assert_eq!(ours.instances, theirs.instances, "{odd}");
            }
        }
    }
    assert!(refused > 0, "it is not guessed at");
}
