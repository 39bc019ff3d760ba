//! STS's XML, which differs from EC2's in almost everything.

use chrono::SecondsFormat;

use super::document;
use crate::fault::Refusal;
use crate::sts::{Assumed, Caller};

const XMLNS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Writes STS's answer to AssumeRole.
pub(super) fn assumed(request_id: &str, assumed: &Assumed) -> String {
    let Assumed { session, expires } = assumed;
    document("AssumeRoleResponse", Some(XMLNS), |xml| {
        xml.node("AssumeRoleResult", |xml| {
            xml.node("AssumedRoleUser", |xml| {
                xml.leaf("AssumedRoleId", &session.id);
                xml.leaf("Arn", &session.arn);
            });
            xml.node("Credentials", |xml| {
                xml.leaf("AccessKeyId", &session.key);
                xml.leaf("SecretAccessKey", &session.secret);
                xml.leaf("SessionToken", &session.token);
                xml.leaf("Expiration", &expires.to_rfc3339_opts(SecondsFormat::Secs, true));
            });
        });
        xml.node("ResponseMetadata", |xml| xml.leaf("RequestId", request_id));
    })
}

/// Writes STS's answer to GetCallerIdentity.
pub(super) fn caller(request_id: &str, caller: &Caller) -> String {
    document("GetCallerIdentityResponse", Some(XMLNS), |xml| {
        xml.node("GetCallerIdentityResult", |xml| {
            xml.leaf("Arn", &caller.arn);
            xml.leaf("Account", &caller.account);
        });
        xml.node("ResponseMetadata", |xml| xml.leaf("RequestId", request_id));
    })
}

/// Writes the XML of STS's errors.
pub(super) fn refusal(request_id: &str, refusal: &Refusal) -> String {
    let blame = if refusal.status < 500 { "Sender" } else { "Receiver" };
    document("ErrorResponse", Some(XMLNS), |xml| {
        xml.node("Error", |xml| {
            xml.leaf("Type", blame);
            xml.leaf("Code", &refusal.code);
            xml.leaf("Message", &refusal.message);
        });
        xml.leaf("RequestId", request_id);
    })
}
