//! STS: which roles may be assumed, the credentials for them, and whose credentials these are. Knows nothing about
//! machines.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, TimeDelta, Utc};

use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::place::OWN_ACCOUNT;

/// What the access key ids of sessions begin with (IAM user guide, "IAM identifiers").
const SESSION_KEY: &str = "ASIA";
const HOUR: i64 = 3600;
/// The least DurationSeconds that STS accepts (API reference, AssumeRole).
const SHORTEST: i64 = 900;
/// The characters of ids, and of secrets.
const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What a call's signature and headers say about the caller.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) key: String,
    pub(crate) token: String,
}

/// Who makes a call.
pub(crate) struct Caller {
    pub(crate) account: String,
    /// The ARN of the role and session.
    pub(crate) arn: String,
}

/// The parts of a role's ARN.
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

/// An assumed role.
#[derive(Clone)]
pub(crate) struct Session {
    account: String,
    pub(crate) arn: String,
    /// The role's unique id in IAM, with the session's name.
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

impl Session {
    /// Makes up credentials, always the same for the same role and session name.
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

/// Returns text that looks random but is always the same for the same seed.
fn noise(seed: (&str, &str), letters: &[u8], length: usize) -> String {
    let letter = |n| {
        let mut hasher = DefaultHasher::new();
        (seed, n).hash(&mut hasher);
        char::from(letters[hasher.finish() as usize % letters.len()])
    };
    (0..length).map(letter).collect()
}

/// The sessions whose credentials were handed out, by access key id.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<String, Session>);

impl Sessions {
    /// Returns the account of an access key; blank for a session's key that was never handed out.
    pub(crate) fn account(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(session) => &session.account,
            None if key.starts_with(SESSION_KEY) => "",
            None => OWN_ACCOUNT,
        }
    }

    /// Returns whose credentials these are; none for a session's key with the wrong token.
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

    /// Returns all secret access keys and session tokens.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|session| [&session.secret, &session.token])
    }
}

/// A role's session, and when it ends.
pub(crate) struct Assumed {
    pub(crate) session: Session,
    pub(crate) expires: DateTime<Utc>,
}

/// Returns the account of the role in AssumeRole's parameters; blank if they name none.
pub(crate) fn role_account(params: &BTreeMap<String, String>) -> &str {
    let role = params.get("RoleArn").and_then(|arn| Role::parse(arn));
    role.map_or("", |role| role.account)
}

impl Cloud {
    /// Answers GetCallerIdentity, which needs no permission.
    pub(crate) fn caller_identity(&self, credentials: &Credentials) -> Result<Caller, Refusal> {
        self.sessions.caller(credentials).ok_or_else(|| {
            let message = "The security token included in the request is invalid.";
            Refusal::new("InvalidClientTokenId", message).with_status(403)
        })
    }

    /// Answers AssumeRole.
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
        // In real time, which is the only clock that the caller's SDK has.
        Ok(Assumed { session, expires: Utc::now() + lasts })
    }
}

fn required<'a>(params: &'a BTreeMap<String, String>, name: &str, field: &str) -> Result<&'a String, Refusal> {
    params.get(name).ok_or_else(|| constraint("null", field, "Member must not be null"))
}

/// Returns how long a session lasts. Callers are assumed to have a role already, as every Lambda function does, and STS
/// limits role chaining to one hour.
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
