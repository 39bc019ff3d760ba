//! Pure: DescribeInstances's answer → the instances on its page.
//!
//! The SDK reads every field of every instance, and compares each XML element's name with all that it knows, which is
//! most of what a run costs (tests/bench). This reads only the fields that Curfew needs, with quick-xml, and rejects a
//! truncated answer.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use chrono::DateTime;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

use crate::instance::{Instance, InstanceId, RootDevice, State, StateReason, Tags};
use crate::wording::clip;

/// The most characters of a text that an error quotes.
const MAX_QUOTED: usize = 60;

/// A page of instances.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) instances: Vec<Instance>,
    /// The token for the next page; an empty page may have one, too.
    pub(super) next_token: Option<String>,
}

/// Why an answer can't be read.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(format!("the answer can't be read: {error}"))
    }
}

/// Texts that many instances share, such as types and zones, each kept in memory once.
#[derive(Default)]
pub(super) struct Words(HashSet<Arc<str>>);

impl Words {
    fn get(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.0.get(word) {
            return Arc::clone(known);
        }
        let word = Arc::from(word);
        self.0.insert(Arc::clone(&word));
        word
    }
}

/// Reads an answer to DescribeInstances, if it is complete.
pub(super) fn read(answer: &[u8], words: &mut Words) -> Result<Page, Broken> {
    let mut xml = Reader::from_str(std::str::from_utf8(answer)?);
    xml.config_mut().expand_empty_elements = true;
    let mut page = Page::default();
    loop {
        match xml.read_event()? {
            Event::Start(start) if start.name().as_ref() == "DescribeInstancesResponse" => break,
            Event::Start(_) | Event::Eof => return Err(Broken("the answer is not a list of instances".to_owned())),
            _ => {}
        }
    }
    children(&mut xml, |xml, start| match start.name().as_ref() {
        "nextToken" => {
            page.next_token = Some(text(xml, &start)?.into_owned()).filter(|token| !token.is_empty());
            Ok(())
        }
        "reservationSet" => items(xml, |xml| {
            children(xml, |xml, start| match start.name().as_ref() {
                "instancesSet" => items(xml, |xml| {
                    page.instances.push(instance(xml, words)?);
                    Ok(())
                }),
                _ => skip(xml, &start),
            })
        }),
        _ => skip(xml, &start),
    })?;
    Ok(page)
}

/// Reads an instance. Without an id, a state or a launch time nothing can be decided about it, and a guess would be
/// reported as a fact: then the whole answer is rejected.
fn instance(xml: &mut Xml<'_>, words: &mut Words) -> Result<Instance, Broken> {
    let (mut id, mut tags, mut state, mut state_reason) = (None, Tags::default(), None, None);
    let mut launch_time = None;
    let (mut instance_type, mut zone, mut root_device) = (words.get(""), words.get(""), RootDevice::Ebs);
    let (mut spot, mut hibernation, mut operator) = (false, false, None);
    children(xml, |xml, start| {
        match start.name().as_ref() {
            "instanceId" => {
                let text = text(xml, &start)?;
                let read = InstanceId::parse(&text);
                id = Some(read.ok_or_else(|| Broken(format!("{:?} is no instance's id", clip(&text, MAX_QUOTED))))?);
            }
            "instanceType" => instance_type = words.get(&text(xml, &start)?),
            "launchTime" => {
                let text = text(xml, &start)?;
                let read = DateTime::parse_from_rfc3339(&text)
                    .map_err(|_| Broken(format!("{:?} is no launch time", clip(&text, MAX_QUOTED))))?;
                launch_time = Some(read.to_utc());
            }
            "rootDeviceType" if text(xml, &start)? == "instance-store" => root_device = RootDevice::InstanceStore,
            "rootDeviceType" => {}
            "instanceLifecycle" => spot = text(xml, &start)? == "spot",
            "instanceState" => {
                let [name] = texts(xml, ["name"])?;
                state = name.map(|name| State::parse(&name));
            }
            "stateReason" => {
                let [code, message] = texts(xml, ["code", "message"])?;
                let message = message.unwrap_or_default().into_owned();
                state_reason = code.map(|code| Box::new(StateReason { code: code.into_owned(), message }));
            }
            "placement" => {
                let [name] = texts(xml, ["availabilityZone"])?;
                zone = words.get(&name.unwrap_or_default());
            }
            "hibernationOptions" => {
                let [configured] = texts(xml, ["configured"])?;
                hibernation = configured.is_some_and(|configured| configured == "true");
            }
            "operator" => {
                let [managed, principal] = texts(xml, ["managed", "principal"])?;
                operator = managed
                    .filter(|managed| managed == "true")
                    .map(|_| principal.unwrap_or(Cow::Borrowed("an AWS service")).into());
            }
            "tagSet" => {
                let mut read = Vec::new();
                items(xml, |xml| {
                    let [key, value] = texts(xml, ["key", "value"])?;
                    read.extend(key.map(|key| (key, value.unwrap_or_default())));
                    Ok(())
                })?;
                tags = read.into_iter().collect();
            }
            _ => skip(xml, &start)?,
        }
        Ok(())
    })?;
    let missing = |what: &str| Broken(format!("an instance in the answer has no {what}"));
    Ok(Instance {
        id: id.ok_or_else(|| missing("id"))?,
        tags,
        state: state.ok_or_else(|| missing("state"))?,
        state_reason,
        launch_time: launch_time.ok_or_else(|| missing("launch time"))?,
        instance_type,
        zone,
        root_device,
        spot,
        hibernation,
        operator,
    })
}

type Xml<'a> = Reader<&'a [u8]>;

/// Passes each child of the current element to `each`, which has to read it to its end.
fn children<'a>(
    xml: &mut Xml<'a>,
    mut each: impl FnMut(&mut Xml<'a>, BytesStart<'a>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    loop {
        match xml.read_event()? {
            Event::Start(start) => each(xml, start)?,
            Event::End(_) => return Ok(()),
            Event::Eof => return Err(Broken("the answer is cut short".to_owned())),
            _ => {}
        }
    }
}

/// Passes each item of the current list to `each`.
fn items<'a>(xml: &mut Xml<'a>, mut each: impl FnMut(&mut Xml<'a>) -> Result<(), Broken>) -> Result<(), Broken> {
    children(xml, |xml, start| if start.name().as_ref() == "item" { each(xml) } else { skip(xml, &start) })
}

/// Reads the texts of the current element's children with these names.
fn texts<'a, const N: usize>(xml: &mut Xml<'a>, names: [&str; N]) -> Result<[Option<Cow<'a, str>>; N], Broken> {
    let mut found = [const { None }; N];
    children(xml, |xml, start| {
        match names.iter().position(|name| start.name().as_ref() == *name) {
            Some(at) => found[at] = Some(text(xml, &start)?),
            None => skip(xml, &start)?,
        }
        Ok(())
    })?;
    Ok(found)
}

fn text<'a>(xml: &mut Xml<'a>, start: &BytesStart<'a>) -> Result<Cow<'a, str>, Broken> {
    let raw = xml.read_text(start.name())?.into_inner();
    // A comment, an element or a CDATA section, none of which EC2 writes here: better no answer than half a text.
    if raw.contains('<') {
        return Err(Broken("a text in the answer is more than text".to_owned()));
    }
    match raw {
        Cow::Borrowed(raw) => Ok(unescape(raw)?),
        Cow::Owned(raw) => Ok(Cow::Owned(unescape(&raw)?.into_owned())),
    }
}

fn skip(xml: &mut Xml<'_>, start: &BytesStart<'_>) -> Result<(), Broken> {
    xml.read_to_end(start.name())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>8f7724cf</requestId>
  <reservationSet>
    <item>
      <reservationId>r-1</reservationId>
      <groupSet/>
      <instancesSet>
        <item>
          <instanceId>i-0abc12345678def00</instanceId>
          <instanceState><code>80</code><name>stopped</name></instanceState>
          <stateReason><code>Client.UserInitiatedShutdown</code><message>Client.UserInitiatedShutdown: User &amp; co</message></stateReason>
          <instanceType>t3.micro</instanceType>
          <launchTime>2026-11-20T18:59:59.000Z</launchTime>
          <placement><groupName/><availabilityZone>us-east-1a</availabilityZone></placement>
          <rootDeviceType>instance-store</rootDeviceType>
          <instanceLifecycle>spot</instanceLifecycle>
          <networkInterfaceSet><item><status>in-use</status><tagSet><item><key>curfew</key><value>no</value></item></tagSet></item></networkInterfaceSet>
          <tagSet>
            <item><key>Name</key><value> a &lt;b&gt; &#252; </value></item>
            <item><key>empty</key><value/></item>
            <item><key>curfew</key><value>yes</value></item>
          </tagSet>
          <hibernationOptions><configured>true</configured></hibernationOptions>
          <operator><managed>true</managed><principal>eks.amazonaws.com</principal></operator>
        </item>
        <item><instanceId>i-12345678</instanceId><instanceState><name>odd</name></instanceState><launchTime>2026-11-20T19:00:00Z</launchTime><operator><managed>false</managed></operator></item>
      </instancesSet>
    </item>
  </reservationSet>
  <nextToken>more</nextToken>
</DescribeInstancesResponse>
"#;

    #[test]
    fn what_curfew_asks_about_is_read_and_nothing_else() {
        let page = read(ANSWER.as_bytes(), &mut Words::default()).expect("an answer");
        assert_eq!(page.next_token.as_deref(), Some("more"));
        let [full, bare] = page.instances.as_slice() else { panic!("{page:?}") };
        assert_eq!(full.id.as_str(), "i-0abc12345678def00");
        assert_eq!(full.state, State::Stopped);
        assert_eq!(
            full.state_reason.as_ref().map(|it| it.message.as_str()),
            Some("Client.UserInitiatedShutdown: User & co")
        );
        assert_eq!(full.launch_time.to_rfc3339(), "2026-11-20T18:59:59+00:00");
        assert_eq!((&*full.instance_type, &*full.zone), ("t3.micro", "us-east-1a"));
        assert_eq!((full.root_device, full.spot, full.hibernation), (RootDevice::InstanceStore, true, true));
        assert_eq!(full.operator.as_deref(), Some("eks.amazonaws.com"));
        let tags: Vec<_> = full.tags.iter().collect();
        // Blanks count: "yes " and "yes" are different values.
        assert_eq!(tags, [("Name", " a <b> ü "), ("empty", ""), ("curfew", "yes")]);
        assert_eq!((bare.id.as_str(), &bare.operator, &bare.state), ("i-12345678", &None, &State::parse("odd")));
    }

    #[test]
    fn an_instance_without_id_state_or_launch_time_fails_the_answer() {
        for (whole, odd) in [
            ("<instanceId>i-12345678</instanceId>", ""),
            ("<instanceId>i-12345678</instanceId>", "<instanceId>i-1234567x</instanceId>"),
            ("<instanceState><name>odd</name></instanceState>", ""),
            ("<instanceState><name>odd</name></instanceState>", "<instanceState><code>16</code></instanceState>"),
            ("<launchTime>2026-11-20T19:00:00Z</launchTime>", ""),
            ("<launchTime>2026-11-20T19:00:00Z</launchTime>", "<launchTime>yesterday</launchTime>"),
        ] {
            assert!(ANSWER.contains(whole), "{whole}");
            let answer = ANSWER.replace(whole, odd);
            assert!(read(answer.as_bytes(), &mut Words::default()).is_err(), "{odd} for {whole}");
        }
    }

    #[test]
    fn an_answer_truncated_anywhere_is_rejected() {
        let end = ANSWER.trim_end().len();
        for cut in (0..end).filter(|cut| ANSWER.is_char_boundary(*cut)) {
            assert!(read(&ANSWER.as_bytes()[..cut], &mut Words::default()).is_err(), "{}", &ANSWER[..cut]);
        }
        assert!(read(&ANSWER.as_bytes()[..end], &mut Words::default()).is_ok());
    }

    #[test]
    fn a_text_with_markup_in_it_is_rejected() {
        for odd in ["<![CDATA[curfew:exempt]]>", "curfew:exempt<!-- x -->", "<b>curfew:exempt</b>", "&unknown;"] {
            let answer = ANSWER.replace("<key>empty</key>", &format!("<key>{odd}</key>"));
            assert!(read(answer.as_bytes(), &mut Words::default()).is_err(), "{odd}");
        }
    }

    #[test]
    fn anything_but_a_list_of_instances_is_rejected() {
        for answer in
            ["", "{}", "<html><body>Bad gateway</body></html>", "<StopInstancesResponse/>", "\u{feff}", "<a></b>"]
        {
            assert!(read(answer.as_bytes(), &mut Words::default()).is_err(), "{answer}");
        }
    }
}
