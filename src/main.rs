//! The Lambda function `ec2-curfew`: wiring only.

use std::env::var;
use std::process::ExitCode;

use ec2_curfew::ec2::{Aws, Limits};
use ec2_curfew::event::Event;
use ec2_curfew::{handle, telemetry};
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Error, LambdaInvocation, Runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Error> {
    telemetry::init(var("AWS_LAMBDA_LOG_LEVEL").ok().as_deref());
    let limits = match Limits::parse(&var("CURFEW_EC2_LIMITS").unwrap_or_default()) {
        Ok(limits) => limits,
        Err(problem) => {
            tracing::error!("CURFEW_EC2_LIMITS: {problem}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let aws = Aws::from_env(limits).await;
    let whole = MapRequestLayer::new(|invocation: LambdaInvocation| LambdaInvocation {
        body: Event::wrapped_whole(&invocation.body).into(),
        ..invocation
    });
    Runtime::new(service_fn(|event| handle(event, aws.clone()))).layer(whole).run().await?;
    Ok(ExitCode::SUCCESS)
}
