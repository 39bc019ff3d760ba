//! What people write: names, hours themselves, lists, zones and holidays.

use super::*;

/// Runs ticks at these moments, and returns whether the instance ran after each.
async fn runs_at(event: &Value, hours: &str, moments: &[&str]) -> Vec<bool> {
    let mut world = cloud([with_hours("web", hours)]).await;
    let mut all = Vec::new();
    for moment in moments {
        let told = tick(&mut world, event, moment).await;
        assert_eq!(told.verdict(), "complete", "{:#}", told.report);
        all.push(runs(&world, "web"));
    }
    all
}

fn hours(hours: Value) -> Value {
    with(reconcile(), json!({ "hours": hours }))
}

#[tokio::test]
async fn start_false_is_stopped_at_closing_and_started_by_people_only() {
    let event = |remember: bool| {
        with(hours(json!({"by-hand": {"open": OFFICE, "start": false}})), json!({ "remember": remember }))
    };
    for event in [event(true), event(false)] {
        let mut world = cloud([with_hours("web", "by-hand")]).await;
        assert_eq!(tick(&mut world, &event, "Tu 19:00").await.names("changed"), names(["web"]));
        ticks_every(&mut world, &event, 120, "Tu 20:00", "We 06:00").await;
        let morning = ticks(&mut world, &event, "We 08:00", "We 08:20").await;
        assert!(!runs(&world, "web") && morning.count("StartInstances") == 0);
        assert_eq!(morning.sentences(), ["Wed 08:00 office: 1 of 1 as scheduled"]);
        person_starts(&world, "web", "We 09:00").await;
        assert_eq!(tick(&mut world, &event, "We 19:00").await.names("changed"), names(["web"]));
    }
}

#[tokio::test]
async fn a_list_of_texts_is_open_when_any_of_them_is() {
    let event = hours(json!({"shared": ["Mo-Fr 09:00-17:00", "Tu 20:00-22:00", "Tu 21:00-24:00"]}));
    let moments = ["Tu 17:00", "Tu 20:00", "Tu 22:00", "We 00:00", "We 09:00", "We 17:00"];
    assert_eq!(runs_at(&event, "shared", &moments).await, [false, true, true, false, true, false]);
}

#[tokio::test]
async fn a_name_with_semicolons_in_it_is_a_name_first() {
    let custodian = "off=(M-F,19);on=(M-F,7);tz=pt";
    let event = hours(json!({ custodian: "Mo-Fr 07:00-19:00", OFFICE: "Mo-Fr 10:00-12:00" }));
    assert_eq!(runs_at(&event, custodian, &["Tu 19:00", "We 07:00"]).await, [false, true]);
    // Even if the name could be read as hours, too.
    assert_eq!(runs_at(&event, OFFICE, &["Tu 12:00", "We 08:00", "We 10:00"]).await, [false, false, true]);
}

#[tokio::test]
async fn hours_in_the_tag_itself_and_a_slash_for_a_semicolon() {
    let text = "Mo-Fr 08:00-19:00 / We off";
    let moments = ["Tu 08:00", "Tu 19:00", "We 08:00", "We 19:00", "Th 08:00"];
    assert_eq!(runs_at(&reconcile(), text, &moments).await, [true, false, false, false, true]);
    assert_eq!(runs_at(&reconcile(), &text.replace(" / ", "; "), &moments).await, [true, false, false, false, true]);
}

#[tokio::test]
async fn the_time_zone_of_the_request_is_for_those_that_say_none() {
    // Nine hours ahead of UTC, all year.
    let tokyo = with(hours(json!({"office": OFFICE})), json!({"timezone": "Asia/Tokyo"}));
    let moments = ["Tu 09:55", "Tu 10:00", "Tu 22:55", "Tu 23:00"];
    for tag in ["office", "Mo-Fr 08:00-19:00 "] {
        assert_eq!(runs_at(&tokyo, tag, &moments).await, [true, false, false, true], "{tag}");
    }
    let own = json!({"office": {"open": OFFICE, "timezone": "Asia/Tokyo"}});
    for zone in ["UTC", "America/Phoenix"] {
        let event = with(hours(own.clone()), json!({ "timezone": zone }));
        assert_eq!(runs_at(&event, "office", &moments).await, [true, false, false, true], "{zone}");
    }
}

#[tokio::test]
async fn the_holidays_of_the_request_are_for_those_that_say_none() {
    let wednesday = at("We 00:00").date_naive().to_string();
    let holidays = json!({ "add": [wednesday] });
    let moments = ["Tu 19:00", "We 08:00", "We 12:00", "Th 08:00"];
    let text = "Mo-Fr 08:00-19:00; PH off";
    let event = with(hours(json!({ "office": text })), json!({ "holidays": holidays }));
    for tag in ["office", text, "Mo-Fr 08:00-19:00 / PH off"] {
        assert_eq!(runs_at(&event, tag, &moments).await, [false, false, false, true], "{tag}");
    }
    let own = json!({"open": text, "holidays": {"add": ["2020-02-02"]}});
    let event = with(hours(json!({ "office": own })), json!({ "holidays": holidays }));
    assert_eq!(runs_at(&event, "office", &moments).await, [false, true, true, true], "its own holidays");
}

#[tokio::test]
async fn a_countrys_holidays() {
    // Christmas before last would be too long ago: Curfew accepts a delay of a year.
    let now = Utc::now().date_naive();
    let year = if (now.month(), now.day()) > (12, 26) { now.year() } else { now.year() - 1 };
    let christmas = NaiveDate::from_ymd_opt(year, 12, 25).unwrap();
    let event = with(hours(json!({"office": "Mo-Su 08:00-19:00; PH off"})), json!({"holidays": "DE"}));
    let machine = with_hours("web", "office").launched(at(&format!("{}T12:00:00Z", christmas - Days::new(1))));
    let mut world = cloud([machine]).await;
    tick(&mut world, &event, &format!("{}T19:00:00Z", christmas - Days::new(1))).await;
    for (day, open) in [(christmas, false), (christmas + Days::new(1), false), (christmas + Days::new(2), true)] {
        tick(&mut world, &event, &format!("{day}T08:00:00Z")).await;
        assert_eq!(runs(&world, "web"), open, "{day}");
    }
}

#[tokio::test]
async fn a_span_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let moments = ["Mo 22:00", "Tu 05:55", "Tu 06:00", "Tu 22:00", "We 00:00", "Sa 05:55", "Sa 06:00", "Su 22:00"];
    let expected = [true, true, false, true, true, true, false, false];
    assert_eq!(runs_at(&reconcile(), "Mo-Fr 22:00-06:00", &moments).await, expected);
}
