//! What people write, and what they mean by it, hour by hour: no text that is offered instead may be open longer, or on
//! other days, for whoever copies it pays for it.

use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;

use super::{at, bad, of};
use crate::hours::Hours;

/// Hours on the days from Monday to Sunday, counted by hand.
type Week = [f64; 7];

const fn workdays(hours: f64) -> Week {
    [hours, hours, hours, hours, hours, 0.0, 0.0]
}

const fn days(hours: [u8; 7]) -> Week {
    let mut week = [0.0; 7];
    let mut day = 0;
    while day < 7 {
        week[day] = hours[day] as f64;
        day += 1;
    }
    week
}

const fn daily(hours: f64) -> Week {
    [hours; 7]
}

/// What is meant in a week without holidays, and ways to write it.
const MEANT: [(Week, &[&str]); 38] = [
    (
        workdays(11.0),
        &[
            "Mon-Fri 8-19",
            "Mo-Fr 8-19",
            "mon-fri 8-19",
            "MON-FRI 08:00-19:00",
            "Mon - Fri, 8:00 - 19:00",
            "Mon\u{2013}Fri 08:00\u{2013}19:00",
            "Mo-Fr 0800-1900",
            "Monday to Friday 8 to 19",
            "Monday through Friday, 8:00-19:00",
            "monday-friday 08:00-19:00",
            "8-19 Mon-Fri",
            "8-19 Mo-Fr",
            "08:00-19:00 Mo-Fr",
            "from 8 to 19 on weekdays",
            "8am to 7pm, Monday to Friday",
            "8am-7pm weekdays",
            "weekdays 8am-7pm",
            "Weekdays 8 a.m. - 7 p.m.",
            "Mo-Fr 8-7pm",
            "Mo-Fr 8am-7",
            "Mo-Fr 8h-19h",
            "Mo-Fr 8h00-19h00",
            "Mo-Fr 8.00-19.00",
            "Mo-Fr 8-19 Uhr",
            "Mo. - Fr. 8-19",
            "Mo-Fr: 8-19",
            "Mo-Fr:8-19",
            "M-F 8-19",
            "mon-fri-8-19",
            "Mo..Fr 8..19",
            "Mo-Fr 8-19; 2026-12-24..2027-01-02 off",
            "mon_to_fri_8-19",
            "\"Mo-Fr 08:00-19:00\"",
            "'Mo-Fr 08:00-19:00'",
            "\u{201c}Mon-Fri 8-19\u{201d}",
            "Mon Tue Wed Thu Fri 8-19",
            "Mon,Tue,Wed,Thu,Fri 8-19",
            "Mo/Tu/We/Th/Fr 8-19",
            "Mo; Tu; We; Th; Fr 08:00-19:00",
            "Mo, Tu, We, Th, Fr 08:00-19:00",
            "Mo-Fr 08:00-19:00 PH off",
            "Mo-Fr 8-19, PH off",
            "Mo-Fr 08:00-19:00, PH off",
            "8-19 Mo-Fr; PH off",
            "8-19 Mo-Fr, closed PH",
            "weekdays 8-19 except holidays",
            "Mon-Fri 8-19 but not on public holidays",
            "PH off; Mon-Fri 8-19",
            "Mo-Fr 08:00-19:00; Mo-Fr PH off",
            "Mo-Fr 08:00-19:00; Su PH off",
            "Mo-Fr 8-19, closed weekends",
            "Mo-Fr 8-19; weekends off",
            "Mo-Fr 8-19 Sa,Su off",
            "8-19 Mo-Fr, weekends off",
            "8-19, Sa,Su off",
            "Sa/Su off; Mo-Fr 8-19",
            "Sa / Su off / Mo-Fr 8-19",
            "Mo-Fr 8-19; 25 Dec off",
            "Mo-Fr 8-19; 25th Dec off",
            "Mo-Fr 8-19; Dec 25th off",
            "Mo-Fr 8-19; Dec 24, 25, 26 off",
            "Mo-Fr 8-19; 2026-12-25 off",
            "Mo-Fr 08:00-19:00; 2026-12-25 off",
            "Mo-Fr 08:00-19:00; Feb 30 off",
            "Mo-Fr 08:00-19:00 \"office\"",
            "08:00-19:00 \"weekdays\"",
            "off=(M-F,19);on=(M-F,8)",
        ],
    ),
    (
        workdays(8.0),
        &[
            "9-5 Mon-Fri",
            "Mon-Fri 9-5",
            "9am-5pm weekdays",
            "weekdays 9am to 5pm",
            "Mo-Fr 9-5pm",
            "Mo-Fr 9am-5",
            "Mon-Fri 9:00-5:00",
            "Mon-Fri 9:30-5:30",
            "0900-1700 Mon-Fri",
            "9 to 5, Monday to Friday",
            "Mon-Fri from 9 until 17",
            "Mo-Fr 9:00:00-17:00:00",
            "workdays 9-17",
            "Mon thru Fri 9am-5pm",
        ],
    ),
    (workdays(10.0), &["8am to 6pm, Monday to Friday", "from 8 to 18 on weekdays", "Mo-Fr 8-6", "18-4 Mo-Fr"]),
    (
        workdays(12.0),
        &[
            "8-20 Mo-Fr",
            "Mo-Fr 8-8",
            "Mo-Fr 8:00-8:00",
            "Mo-Fr 8am-8pm",
            "Mo-Fr 7-7pm",
            "Mo-Fr 9am-9",
            "Mon-Fri 12pm-12am",
        ],
    ),
    (workdays(4.0), &["Mo-Fr 1-5pm", "Mo-Fr 1pm-5", "Mo-Fr 13-17", "weekdays noon-4", "Mo-Fr 8am-noon", "Mo-Fr 10-2"]),
    (workdays(1.0), &["Mo-Fr 12-1pm", "Mo-Fr 12-13", "Mo-Fr noon-1pm"]),
    (workdays(2.0), &["Mo-Fr 8-10pm", "Mo-Fr 9am-11", "Mo-Fr 9-11am", "Mo-Fr 11-1pm"]),
    (
        workdays(8.0),
        &[
            "Mo-Fr 12-8am",
            "Mo-Fr 22-6",
            "Mo-Fr 10pm-6",
            "Mo-Fr 10-6am",
            "Mo-Fr 10pm-6am",
            "Mo-Fr midnight-8",
            "22-6 Mo-Fr",
        ],
    ),
    (workdays(9.0), &["Mo-Fr 8-12 and 13-18", "Mo-Fr 8-12, 13-18", "8-12, 13-18 Mo-Fr", "Mo-Fr 8-12, Mo-Fr 13-18"]),
    (workdays(9.0), &["Mo-Fr 08:00-12:00, Mo-Fr 13:00-18:00", "Mo-Fr 8-12/13-18", "Mo-Fr 08:00-12:00 13:00-18:00"]),
    (
        days([8, 0, 8, 0, 8, 0, 0]),
        &[
            "Mon/Wed/Fri 9-17",
            "Mo/We/Fr 09:00-17:00",
            "Mo / We / Fr 09:00-17:00",
            "M,W,F 9-17",
            "Mon, Wed and Fri 9-17",
            "Mon+Wed+Fri 9-17",
            "Mon & Wed & Fri 9am-5pm",
            "9-17 Mon, Wed, Fri",
            "Mo, We, Fr 09:00-17:00",
            "every Monday, Wednesday, Friday 9-17",
        ],
    ),
    (days([11, 0, 11, 0, 11, 0, 0]), &["Mo / We / Fr 08:00-19:00", "Mo We Fr 8-19"]),
    (days([8, 8, 8, 8, 8, 0, 0]), &["Sa/Su off; Mo-Fr 9-17", "Sa,Su off; Mon-Fri 9-17", "closed Sa,Su; Mo-Fr 9-17"]),
    (
        days([10, 10, 10, 10, 10, 3, 0]),
        &[
            "Monday to Friday, 8:00 - 18:00, Saturday 9-12",
            "Mo-Fr 8-18 Sa 9-12",
            "Mo-Fr 8-18, Sa 9-12",
            "Mo-Fr 8-18 / Sa 9-12",
            "Mo-Fr 8-18 | Sa 9-12; Su off",
            "8-18 Mo-Fr, 9-12 Sa",
            "8-18 Mo-Fr; 9-12 Sa",
            "Mo-Fr 08:00-18:00, Sa 09:00-12:00",
            "8am-6pm Mon-Fri and 9am-noon Sat",
        ],
    ),
    (days([0, 8, 8, 0, 0, 0, 0]), &["Tu,We 9-17", "tues weds 9-17", "Tuesdays and Wednesdays 9-5", "Tue-Wed 9-17"]),
    (
        days([0, 0, 0, 0, 0, 6, 6]),
        &["weekends 10-16", "Sat-Sun 10-16", "Sat & Sun 10am-4pm", "10-16 weekend", "Sa-Su 10-4"],
    ),
    (days([8, 8, 8, 8, 8, 0, 0]), &["9-5 Mon-Fri, Sat off", "9-17 Mon-Fri, PH off"]),
    (daily(8.0), &["9-5", "9am-5pm", "9am-5pm every day", "daily 9-17", "9-17 daily", "every day 9-17", "0900-1700"]),
    (daily(8.0), &["22-6", "10pm-6am", "midnight-8am", "9-17, PH off", "off on PH; 9-17"]),
    (daily(9.0), &["08:00-12:00; 13:00-18:00", "8-12, 13-18", "8-12 and 13-18", "08:00-12:00 / 13:00-18:00"]),
    (daily(11.0), &["08:00-19:00; Dec 25, Dec 26 off", "Dec 24,25 off; 08:00-19:00", "8-19 except Dec 25"]),
    (days([8, 8, 8, 8, 8, 0, 8]), &["9-17 except Saturdays", "Sa off; 09:00-17:00", "9-17, Sa off"]),
    // Round the clock, where it is said, or where there is no time at all.
    (workdays(24.0), &["Mo-Fr", "weekdays", "Monday to Friday", "Mo-Fr open", "Mo-Fr 0-24", "Mo-Fr 00:00-00:00"]),
    (workdays(24.0), &["Mo/Tu/We/Th/Fr", "Mo-Fr midnight-midnight", "Mo-Fr; PH off"]),
    (daily(24.0), &["24x7", "24X7", "\"24/7\"", "0-24", "daily"]),
    (days([24, 24, 24, 24, 24, 24, 0]), &["24x7, Su off", "24/7 except Sundays", "24/7, Su off"]),
    (days([24, 11, 11, 11, 11, 11, 11]), &["Mo 00:00-00:00; Tu-Su 8-19"]),
    ([24.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &["Mo#1", "mon#1"]),
    (daily(0.0), &["friL", "jan/3"]),
    // Nth weekdays: of the week from the first to the seventh of February.
    (days([8, 0, 0, 0, 0, 0, 0]), &["first Monday 9-17", "1st Monday 9-17", "Mo#1 9-17", "mon#1 09:00-17:00"]),
    (days([8, 0, 0, 0, 0, 0, 0]), &["first Monday of the month 9-17", "Mo[1] 9-17", "9-17 first Monday"]),
    (
        daily(0.0),
        &["friL 9-17", "last Friday 9-17", "Fr#5 9-17", "jan/3 9-17", "Jan/3 mon#1 9-17", "Apr 1-31 08:00-19:00"],
    ),
    // Steps and cuts.
    (daily(0.0), &["week 11-13/3 Mo-Fr 08:00-19:00", "week 20-23/4 08:00-10:00"]),
    (
        days([8, 0, 0, 0, 0, 0, 0]),
        &["2027-2029/3 Mo 09:00-17:00", "week 5-6/2 Mo 09:00-17:00", "week 05-53/50 Mo 09:00-17:00"],
    ),
    ([20.0, 14.0, 14.0, 14.0, 14.0, 18.0, 24.0], &["24/7; Mo-Fr 20:00-06:00 off"]),
    (daily(14.0), &["24/7; 20:00-06:00 off", "00:00-24:00; Mo-Su 20:00-30:00 off", "24/7; 20-6 off"]),
    ([24.0, 24.0, 24.0, 24.0, 22.0, 23.0, 24.0], &["24/7; Fr 22:00-25:00 off"]),
    (days([4, 4, 4, 4, 0, 0, 0]), &["Mo-Th 08:00-12:00, Fr off", "Mo-Thu 8-12; Fri closed"]),
];

/// Where it isn't clear what is meant, or nothing can be: nothing is offered.
const UNCLEAR: [&str; 82] = [
    // Times of whom?
    "Mo-Fr 8-19 Sa",
    "Mo-Fr 9-17, Sa, Su",
    "Mo-Fr; Sa 9-12",
    "Mo-Fr / Sa 09:00-12:00",
    "Mo-Fr 08:00-19:00; Sa",
    "Mo-Fr 08:00-19:00, Sa",
    "Mo-Fr 8-20, 9-14 Sa",
    "8-12 Mo-Fr 13-17",
    "9-5 Mon, Tue, Sat off",
    "8-19 Dec off",
    "24-26 Dec off; 9-17",
    "Sat 8; Mon-Fri 9-17",
    // A later rule would take away what an earlier one opens.
    "Mo-Th 08:00-12:00, Mo 13:00-17:00",
    "Mo-Th 8-12, Mo 13-17",
    "Mo-Fr 08:00-12:00, PH 10:00-14:00",
    "08:00-12:00, Mo 13:00-17:00",
    "8-19, Sa 9-12",
    "daily 8-12, weekends 13-17",
    // Which half of the day?
    "12-12",
    "Mo-Fr 12-12",
    "Mo-Fr 08:00-08:00",
    "Mo-Fr 12:00-12:00",
    // A time without an end, and one without a day.
    "Mo-Fr 8",
    "Mo-Fr 8am",
    "Mo-Fr 24h",
    "7",
    "Mo-Fr 8-",
    "Mo 08:00-Fr 18:00",
    "Fri 18:00 - Mon 08:00",
    "stop 19:00 start 08:00",
    "19:00 off, 08:00 on",
    "Mo-Fr 8-17 off",
    // Words that say less than all of it.
    "every other Monday 9-17",
    "every second Monday 9-17",
    "every 2nd Monday 9-17",
    "second Monday to Friday 9-17",
    "Mo-Fr 9-17 in summer",
    "Mo-Fr 9-17 if needed",
    "Mo-Fr 9-17 school holidays off",
    "Mo-Fr 9-17 UTC",
    "Mo-Fr 9-17 CET",
    "9-17 America/New_York",
    "Mo-Fr business hours",
    "business hours",
    "office hours",
    "nights",
    "Mo-Fr night",
    "Mo-Fr 9-17 \"from March 1\"",
    "Mo-Fr 9-17 or 10-18",
    "Mo-Fr 9-17 max 4 hours",
    "Mo-Fr ca. 9-17",
    "half past 8 to 5",
    // Other languages' days.
    "Montag 8-9",
    "Mo-Do 8-18",
    "Sa-So 10-16",
    "lun-ven 8-19",
    // Other tools'.
    "off=(M-F,19);on=(M-F,7);tz=pt",
    "off=(M-F,19);on=(M-F,7);tz=America/Los_Angeles",
    "off=[(M-F,21),(U,18)];on=[(M-F,6),(U,10)];tz=et",
    "off=(M-F,6);on=(M-F,22)",
    "off=(M-T,19);on=(M-F,7)",
    "cron(0 8 * * ? *)",
    "0 8 * * 1-5",
    "rate(5 minutes)",
    // Days of a month, or hours?
    "December 9-17",
    "Jan,Apr 8-19",
    "1-5 Jan 9-17",
    "1-5 8-19",
    "1-5 08:00-19:00",
    "Mo-Fr 7-19; 24-26 Dec off",
    // Nothing that opens.
    "Feb 30 08:00-19:00",
    "2020 Mon 8-19",
    "2026Jan 08:00-19:00",
    "2026-01-15 9-17",
    "PH 9-17; PH off",
    "08:00-19:00; Mo-Fr PH off",
    "Mo-Sa 08:00-19:00; Mo-Fr PH off",
    "office",
    "running",
    "yes",
    "true",
    "24x5",
];

/// The first week of February 2027: no holiday, and the month's first of each weekday.
fn offered(right: &str) -> Week {
    let hours = Hours::parse(right, Tz::UTC, &of("DE")).unwrap_or_else(|bad| panic!("offered: {bad}"));
    let first = NaiveDate::from_ymd_opt(2027, 2, 1).expect("a Monday");
    let mut week = [0.0; 7];
    for day in first.iter_days().take(7) {
        let spans = hours.texts.iter().flat_map(|rules| rules.on(day));
        let minutes: u32 = spans.map(|span| u32::from(span.end - span.start)).sum();
        week[day.weekday().num_days_from_monday() as usize] = f64::from(minutes) / 60.0;
    }
    week
}

#[test]
fn what_is_offered_is_what_people_mean_and_never_more() {
    let now = at(super::NOW);
    let (mut wrong, mut spellings) = (Vec::new(), 0);
    for (week, texts) in MEANT {
        for text in texts {
            spellings += 1;
            let bad = bad(text);
            let Some(right) = bad.write() else {
                wrong.push(format!("{text}: nothing"));
                continue;
            };
            let hours = Hours::parse(right, Tz::UTC, &of("DE")).unwrap_or_else(|bad| panic!("offered: {bad}"));
            let opens = hours.state_at(now).open || hours.next_edge(now).is_some();
            let clock = right.contains("00:00-24:00")
                && text.contains(|c: char| c.is_ascii_digit())
                && !["24", "00:00-00:00", "midnight-midnight", "#1", "jan/3"]
                    .iter()
                    .any(|whole_day| text.contains(whole_day));
            if !opens || clock || offered(right) != week {
                wrong.push(format!("{text}: {right}, opens: {opens}, {:?}", offered(right)));
            }
        }
    }
    for text in UNCLEAR {
        spellings += 1;
        if let Some(right) = bad(text).write() {
            wrong.push(format!("{text}: {right}, not nothing"));
        }
    }
    assert!(wrong.is_empty(), "{} of {spellings}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(spellings > 200, "{spellings}");
}
