//! The only IAM policy that is simulated for instances: a caller may act on machines with a certain tag, and no others.

use crate::api::{Action, Request};
use crate::cloud::Cloud;
use crate::fault::Refusal;
use crate::place::Place;

const UNAUTHORIZED: &str = "You are not authorized to perform this operation.";
/// EC2's real one is longer, and just as opaque.
const ENCODED: &str = "Encoded authorization failure message: pwzJpefrK-OBkN09iwXMerRsHYZLPx_GXTJk6bKtSSoaQvCMF0wd6rFc";

impl Cloud {
    /// Refuses a call about a machine without the tag that the policy requires.
    pub(crate) fn authorize(&self, request: &Request, ids: &[String]) -> Result<(), Refusal> {
        let action = match request.action {
            Action::Describe(_) | Action::DescribeRegions | Action::Storage(_) => return Ok(()),
            Action::Start => "ec2:StartInstances",
            Action::Stop { .. } => "ec2:StopInstances",
            Action::CreateTags(_) => "ec2:CreateTags",
            Action::DeleteTags(_) => "ec2:DeleteTags",
        };
        let Some((key, value)) = &self.settings.only_tagged else {
            return Ok(());
        };
        let has_tag = |id: &&String| self.machine(id).is_some_and(|machine| machine.tags.get(key) == Some(value));
        let Some(bad) = ids.iter().find(|id| !has_tag(id)) else {
            return Ok(());
        };
        let Place { account, region } = &request.place;
        let caller = &request.caller;
        let message = match self.settings.only_tagged_names {
            false => format!("{UNAUTHORIZED} {ENCODED}"),
            true => format!(
                "{UNAUTHORIZED} User: {caller} is not authorized to perform: {action} on resource: \
                 arn:aws:ec2:{region}:{account}:instance/{bad} because no identity-based policy allows the {action} \
                 action. {ENCODED}"
            ),
        };
        Err(Refusal::new("UnauthorizedOperation", message).with_status(403))
    }
}
