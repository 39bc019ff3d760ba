//! STS: which roles may be assumed, the credentials that one gets, and who comes with them. Knows nothing of machines.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, TimeDelta, Utc};

use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::place::OWN_ACCOUNT;

/// How the access key ids of sessions begin.
const SESSION_KEY: &str = "ASIA";
const HOUR: i64 = 3600;
/// STS's bound on DurationSeconds.
const SHORTEST: i64 = 900;
/// What ids are made of, and what secrets are.
const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What a call's signature and headers say of who calls.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) key: String,
    pub(crate) token: String,
}

/// Who calls.
pub(crate) struct Caller {
    pub(crate) account: String,
    /// The role and the session.
    pub(crate) arn: String,
}

/// A role, as its ARN names it.
struct Role<'a> {
    partition: &'a str,
    account: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    fn parse(arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = parts[..] else {
            return None;
        };
        let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
        let is_account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
        (is_account && !name.is_empty()).then_some(Self { partition, account, name })
    }
}

/// A role that somebody has assumed.
#[derive(Clone)]
pub(crate) struct Session {
    account: String,
    pub(crate) arn: String,
    /// The id that IAM has for the role and the session.
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

impl Session {
    /// Makes credentials up, the same for the same role and name every time.
    fn new(role: &Role, name: &str) -> Self {
        let Role { partition, account, name: role } = role;
        let arn = format!("arn:{partition}:sts::{account}:assumed-role/{role}/{name}");
        let noise = |what, letters, length| noise((arn.as_str(), what), letters, length);
        Self {
            account: (*account).to_owned(),
            id: format!("AROA{}:{name}", noise("id", CAPITALS, 17)),
            key: format!("{SESSION_KEY}{account}{}", noise("key", CAPITALS, 4)),
            secret: noise("secret", BASE64, 40),
            token: noise("token", BASE64, 400),
            arn,
        }
    }
}

/// Text that looks random, always the same for the same seed.
fn noise(seed: (&str, &str), letters: &[u8], length: usize) -> String {
    let letter = |n| {
        let mut hasher = DefaultHasher::new();
        (seed, n).hash(&mut hasher);
        char::from(letters[hasher.finish() as usize % letters.len()])
    };
    (0..length).map(letter).collect()
}

/// The sessions that somebody got credentials for, by access key id.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<String, Session>);

impl Sessions {
    /// The account of whoever has this access key; blank for a session's key that nobody got.
    pub(crate) fn account(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(session) => &session.account,
            None if key.starts_with(SESSION_KEY) => "",
            None => OWN_ACCOUNT,
        }
    }

    /// Who comes with these credentials; none for a session's key without the token that came with it.
    pub(crate) fn caller(&self, credentials: &Credentials) -> Option<Caller> {
        let Credentials { key, token } = credentials;
        match self.0.get(key) {
            Some(session) if session.token == *token => {
                Some(Caller { account: session.account.clone(), arn: session.arn.clone() })
            }
            None if !key.starts_with(SESSION_KEY) => Some(Caller {
                account: OWN_ACCOUNT.into(),
                arn: format!("arn:aws:sts::{OWN_ACCOUNT}:assumed-role/curfew/curfew"),
            }),
            Some(_) | None => None,
        }
    }

    /// Every text that must stay with whoever got it.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|session| [&session.secret, &session.token])
    }
}

/// A role's session, and when it ends.
pub(crate) struct Assumed {
    pub(crate) session: Session,
    pub(crate) expires: DateTime<Utc>,
}

/// The account of the role in AssumeRole's parameters; blank where they name none.
pub(crate) fn role_account(params: &BTreeMap<String, String>) -> &str {
    let role = params.get("RoleArn").and_then(|arn| Role::parse(arn));
    role.map_or("", |role| role.account)
}

impl Cloud {
    /// GetCallerIdentity, which everybody may call.
    pub(crate) fn caller_identity(&self, credentials: &Credentials) -> Result<Caller, Refusal> {
        self.sessions.caller(credentials).ok_or_else(|| {
            let message = "The security token included in the request is invalid.";
            Refusal::new("InvalidClientTokenId", message).with_status(403)
        })
    }

    /// AssumeRole.
    pub(crate) fn assume_role(
        &mut self,
        credentials: &Credentials,
        params: &BTreeMap<String, String>,
    ) -> Result<Assumed, Refusal> {
        let caller = self.caller_identity(credentials)?;
        let role_arn = required(params, "RoleArn", "roleArn")?;
        let name = required(params, "RoleSessionName", "roleSessionName")?;
        let identity = params.get("SourceIdentity");
        let may_stand = |letter: char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter);
        for (field, text) in [("roleSessionName", Some(name)), ("sourceIdentity", identity)] {
            let Some(text) = text else { continue };
            if !(2..=64).contains(&text.len()) || !text.chars().all(may_stand) {
                return Err(constraint(&format!("'{text}'"), field, "2 to 64 characters of [\\w+=,.@-]"));
            }
        }
        let lasts = duration(params)?;
        let role = Role::parse(role_arn).ok_or_else(|| invalid("Request ARN is invalid"))?;
        if self.settings.denied_accounts.iter().any(|denied| denied == role.account) {
            let message =
                format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}", caller.arn);
            return Err(Refusal::new("AccessDenied", message).with_status(403));
        }
        if identity.is_some() && self.settings.anonymous_accounts.iter().any(|account| account == role.account) {
            let action = "sts:SetSourceIdentity";
            let message =
                format!("User: {} is not authorized to perform: {action} on resource: {role_arn}", caller.arn);
            return Err(Refusal::new("AccessDenied", message).with_status(403));
        }
        let session = Session::new(&role, name);
        self.sessions.0.insert(session.key.clone(), session.clone());
        // By real time: the caller's AWS SDK has no other clock.
        Ok(Assumed { session, expires: Utc::now() + lasts })
    }
}

fn required<'a>(params: &'a BTreeMap<String, String>, name: &str, field: &str) -> Result<&'a String, Refusal> {
    params.get(name).ok_or_else(|| constraint("null", field, "Member must not be null"))
}

/// How long a session lasts. Whoever calls here has a role already, as every Lambda function has: STS grants a chain
/// of roles one hour at most.
fn duration(params: &BTreeMap<String, String>) -> Result<TimeDelta, Refusal> {
    let Some(text) = params.get("DurationSeconds") else {
        return Ok(TimeDelta::seconds(HOUR));
    };
    match text.parse() {
        Ok(seconds @ SHORTEST..=HOUR) => Ok(TimeDelta::seconds(seconds)),
        Ok(seconds) if seconds > HOUR => {
            let limit = "the 1 hour session limit for roles assumed by role chaining";
            Err(invalid(&format!("The requested DurationSeconds exceeds {limit}.")))
        }
        Ok(_) | Err(_) => {
            let rule = format!("Member must have value greater than or equal to {SHORTEST}");
            Err(constraint(&format!("'{text}'"), "durationSeconds", &rule))
        }
    }
}

fn constraint(value: &str, field: &str, rule: &str) -> Refusal {
    invalid(&format!("1 validation error detected: Value {value} at '{field}' failed to satisfy constraint: {rule}"))
}

fn invalid(message: &str) -> Refusal {
    Refusal::new("ValidationError", message)
}
