//! The adapter: the only file of the library, tests aside, that names the AWS SDK.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
};
use aws_sdk_ec2::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{
    ConfigBag, Credentials, IdentityCache, Intercept, ProvideCredentials, RuntimeComponents, SharedCredentialsProvider,
    SharedHttpClient,
};
use aws_sdk_ec2::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_instances::builders::DescribeInstancesFluentBuilder;
use aws_sdk_ec2::types::{self, Filter, InstanceStateChange, SnapshotAttributeName, Tag};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder as HttpClient, ConnectorBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::page::{self, Page, Words};
use super::{Change, DRY_RUN_IGNORED, Ec2, Error, ErrorKind, Limits, PAGE, TIMEOUT};
use crate::deadline::{Deadline, TooLate};
use crate::instance::{Instance, InstanceId, Mark, STOPPED_AT_TAG, State};
use crate::plan::Step;
use crate::request::Mode;
use crate::select::Filters;
use crate::snapshots::rule::{DELETE_AFTER_TAG, GIB, Snapshot, SnapshotId};

/// How long connecting may take: it takes milliseconds unless something is wrong with the network.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one attempt of a call may take. The slowest, a page of 1000 instances, takes EC2 a few seconds.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Our error code for an answer that can't be read.
const BROKEN_ANSWER: &str = "BrokenAnswer";
/// Attempts of calls that only look or tag, by the SDK's standard retries: after throttling, 5xx, time-outs and resets.
/// Three is the SDK's own default.
const ATTEMPTS: u32 = 3;

/// The most calls in flight to one host, all accounts together. Each has a connection: in today's 34 regions these are
/// 816, below the 1,024 files that Lambda lets a function open (Lambda developer guide, "Lambda quotas").
const CALLS_AT_ONCE: usize = 24;
/// Characters in a session's name and in its source identity (STS API reference, AssumeRole).
const MAX_SESSION_NAME: usize = 64;

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build()
}

/// Builds an HTTP client like the SDK's own, but to be shared: otherwise each EC2 client, of which there is one for
/// every account and region, would have its own connections and root certificates.
fn http_client() -> SharedHttpClient {
    HttpClient::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::Ring));
        connector.set_connector_settings(settings.cloned());
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

/// The way to AWS: credentials, connections, the function's own region.
#[derive(Clone, Debug)]
pub struct Aws {
    config: SdkConfig,
    sts: aws_sdk_sts::Client,
    limits: Limits,
    /// The source identity of every session; empty for none.
    execution: String,
    /// The account of an assumed role; empty for the function's own credentials.
    account: String,
    gates: Gates,
}

/// Limits the calls in flight, separately for each host (a region's EC2, or STS): calls that hang in one region don't
/// hold up those to another.
#[derive(Clone, Debug, Default)]
struct Gates(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

impl Gates {
    fn of(&self, host: &str) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(CALLS_AT_ONCE))))
    }
}

impl Aws {
    /// Reads credentials and region from the environment, as the platform sets them.
    pub async fn from_env(limits: Limits) -> Self {
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client()).load().await;
        Self::of(config, limits)
    }

    /// Reads credentials and region from the environment or a profile, as on a person's computer. A profile or region
    /// given here takes precedence over the environment, as with the AWS CLI.
    pub async fn from_profile(profile: Option<&str>, region: Option<&str>) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
        let region = region.map(|region| Region::new(region.to_owned()));
        if let Some(profile) = profile {
            let config = ProviderConfig::without_region().with_http_client(http_client()).with_region(region.clone());
            let keys = ProfileFileCredentialsProvider::builder().profile_name(profile).configure(&config).build();
            loader = loader.profile_name(profile).credentials_provider(keys);
        }
        if let Some(region) = region {
            loader = loader.region(region);
        }
        Self::of(loader.load().await, Limits::default())
    }

    /// Replaces the credentials.
    #[must_use]
    pub fn with_keys(self, id: &str, secret: &str, token: Option<&str>) -> Self {
        let keys = Credentials::new(id, secret, token.map(str::to_owned), None, "given");
        let config = self.config.into_builder().credentials_provider(SharedCredentialsProvider::new(keys)).build();
        Self::of(config, self.limits)
    }

    /// Replaces the own region.
    #[must_use]
    pub fn in_region(self, region: &str) -> Self {
        Self::of(self.config.into_builder().region(Region::new(region.to_owned())).build(), self.limits)
    }

    /// Checks that there are credentials, before any call needs them.
    ///
    /// # Errors
    /// Why there are none, as the SDK's provider says it.
    pub async fn find_credentials(&self) -> Result<(), String> {
        let Some(provider) = self.config.credentials_provider() else { return Err("no credentials".to_owned()) };
        provider.provide_credentials().await.map(drop).map_err(|error| chain(&error))
    }

    /// Asks STS whose credentials these are, and returns the ARN.
    ///
    /// # Errors
    /// STS refused, or did not answer in time.
    pub async fn caller(&self, deadline: Deadline) -> Result<String, Error> {
        let call = self.sts.get_caller_identity();
        let answer = deadline.call_through(&self.gates.of("sts"), || call.send()).await??;
        answer.arn().map(str::to_owned).ok_or_else(|| broken("STS said yes, and not to whom".to_owned()))
    }

    fn of(config: SdkConfig, limits: Limits) -> Self {
        let sts = aws_sdk_sts::config::Builder::from(&config)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts());
        let sts = aws_sdk_sts::Client::from_conf(sts.build());
        Self { config, sts, limits, execution: String::new(), account: String::new(), gates: Gates::default() }
    }

    /// Names the invocation for which roles are assumed from now on, by its request id.
    #[must_use]
    pub fn for_execution(self, request_id: &str) -> Self {
        let execution = request_id.chars().filter(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(*c));
        Self { execution: execution.take(MAX_SESSION_NAME).collect(), ..self }
    }

    /// Assumes a role in another account for an hour, STS's default, which is longer than any invocation lives.
    /// CloudTrail shows the schedule's name in the session's, and the invocation as its source identity. A role that
    /// doesn't allow `sts:SetSourceIdentity` is assumed without one.
    ///
    /// # Errors
    /// STS refused, or did not answer in time.
    pub async fn assume(
        &self,
        account: &str,
        role_arn: &str,
        schedule: &str,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let session: String = format!("curfew-{schedule}").chars().take(MAX_SESSION_NAME).collect();
        let call = self.sts.assume_role().role_arn(role_arn).role_session_name(session);
        // STS requires at least two characters (API reference, AssumeRole).
        let identity = Some(self.execution.clone()).filter(|identity| identity.len() > 1);
        let gate = self.gates.of("sts");
        let ask = |identity| deadline.call_through(&gate, || call.clone().set_source_identity(identity).send());
        let named = ask(identity).await?.map_err(Error::from);
        let answer = match named {
            Err(error) if error.message.contains("sts:SetSourceIdentity") => ask(None).await??,
            named => named?,
        };
        let Some(keys) = answer.credentials() else {
            return Err(broken("STS accepted the call, but returned no credentials".to_owned()));
        };
        let keys = Credentials::new(
            keys.access_key_id(),
            keys.secret_access_key(),
            Some(keys.session_token().to_owned()),
            None,
            "AssumeRole",
        );
        let config = self.config.to_builder().credentials_provider(SharedCredentialsProvider::new(keys));
        // They are only used in this run, but the shared cache would keep them as long as the function lives.
        let config = config.identity_cache(IdentityCache::no_cache()).build();
        Ok(Self { config, account: account.to_owned(), ..self.clone() })
    }

    /// Returns the function's own region, if the environment names one.
    #[must_use]
    pub fn own_region(&self) -> Option<&str> {
        self.config.region().map(Region::as_ref)
    }

    /// Returns EC2's limits, the same for every account and region.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns how AWS is reached, for services other than EC2.
    #[must_use]
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// Builds the client of EC2 in a region.
    #[must_use]
    pub fn ec2(&self, region: &str) -> AwsEc2 {
        let config = Builder::from(&self.config)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            // By default all accounts would share the SDK's one token bucket for retries.
            .retry_partition(RetryPartition::new(format!("ec2-{}-{region}", self.account)))
            .interceptor(Whole)
            .timeout_config(timeouts())
            .build();
        AwsEc2 { client: Client::from_conf(config), gate: self.gates.of(region) }
    }
}

/// EC2 in one account and region, through the AWS SDK.
#[derive(Debug)]
pub struct AwsEc2 {
    client: Client,
    gate: Arc<Semaphore>,
}

impl AwsEc2 {
    async fn through<F: Future>(&self, until: Deadline, call: impl FnOnce() -> F) -> Result<F::Output, TooLate> {
        until.call_through(&self.gate, call).await
    }

    /// Lists the regions enabled for the account, by name.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    pub async fn regions(&self, until: Deadline) -> Result<Vec<String>, Error> {
        let answer = self.through(until, || self.client.describe_regions().send()).await??;
        let mut names: Vec<String> =
            answer.regions().iter().filter_map(|region| region.region_name().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Reads what determines the price of each instance that matches. Instances whose id, launch time, type or tenancy
    /// is missing are left out. Slower than [`Ec2::matching`]: only the command-line tool uses it.
    ///
    /// # Errors
    /// EC2 refused a page, or did not answer in time.
    pub async fn billing(&self, filters: &Filters, until: Deadline) -> Result<Vec<Billing>, Error> {
        let call = self.client.describe_instances().set_filters(Some(sent(filters))).max_results(PAGE);
        every_page(|token| {
            let call = call.clone().set_next_token(token);
            async move {
                let page = self.through(until, || call.send()).await??;
                let instances = page.reservations().iter().flat_map(|it| it.instances());
                Ok((instances.filter_map(Billing::of).collect(), page.next_token))
            }
        })
        .await
    }

    /// Asks for one page, and again if the answer can't be read, which the SDK doesn't retry: [`ATTEMPTS`] times in
    /// all.
    async fn page(
        &self,
        call: &DescribeInstancesFluentBuilder,
        words: &mut Words,
        until: Deadline,
    ) -> Result<Page, Error> {
        let ask = || async {
            let unread = Unread::default();
            call.clone().customize().interceptor(unread.clone()).send().await?;
            unread.body().await
        };
        let mut attempt = 1;
        loop {
            let answer = self.through(until, ask).await?;
            match answer.and_then(|answer| page::read(answer.as_ref(), words).map_err(|page::Broken(why)| broken(why)))
            {
                Err(error) if error.code == BROKEN_ANSWER && attempt < ATTEMPTS => attempt += 1,
                page => return page,
            }
        }
    }
}

impl Ec2 for AwsEc2 {
    async fn matching<T: Send>(
        &self,
        filters: &Filters,
        keep: impl Fn(Instance) -> Option<T> + Send,
        until: Deadline,
    ) -> Result<Vec<T>, Error> {
        let (mut kept, mut words) = (Vec::new(), Words::default());
        let call = self.client.describe_instances().set_filters(Some(sent(filters))).max_results(PAGE);
        let mut next_token = None;
        loop {
            let page = self.page(&call.clone().set_next_token(next_token.clone()), &mut words, until).await?;
            kept.extend(page.instances.into_iter().filter_map(&keep));
            // A short page, or even an empty one, need not be the last: only a missing token says so.
            match page.next_token {
                None => return Ok(kept),
                same if same == next_token => return Err(broken("EC2 returned the same NextToken twice".to_owned())),
                next => next_token = next,
            }
        }
    }

    async fn by_id(&self, ids: &[InstanceId], until: Deadline) -> Result<Vec<Instance>, Error> {
        // An empty list would describe everything.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let call = self.client.describe_instances().set_instance_ids(Some(texts(ids)));
        Ok(self.page(&call, &mut Words::default(), until).await?.instances)
    }

    async fn switch(&self, step: Step, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<Vec<Change>, Error> {
        let dry_run = mode == Mode::DryRun;
        let ids = texts(ids);
        let texts = Some(ids.clone());
        let answer = match step {
            Step::Stop { hibernate } => {
                let call = self.client.stop_instances().set_instance_ids(texts).dry_run(dry_run);
                let call = call.set_hibernate(hibernate.then_some(true));
                let answer = self.through(until, || call.customize().config_override(once()).send()).await?;
                answer.map(|answer| changes(answer.stopping_instances())).map_err(Error::from)
            }
            Step::Start => {
                let call = self.client.start_instances().set_instance_ids(texts).dry_run(dry_run);
                let answer = self.through(until, || call.customize().config_override(once()).send()).await?;
                answer.map(|answer| changes(answer.starting_instances())).map_err(Error::from)
            }
        };
        checked(answer, &ids, mode)
    }

    async fn mark(&self, mark: &Mark, ids: &[InstanceId], mode: Mode, until: Deadline) -> Result<(), Error> {
        let tag = Tag::builder().key(STOPPED_AT_TAG).value(mark.as_str()).build();
        let call = self.client.create_tags().set_resources(Some(texts(ids))).tags(tag);
        let call = call.dry_run(mode == Mode::DryRun);
        // Once: after a failure, the engine asks for fewer.
        let answer = self.through(until, || call.customize().config_override(once()).send()).await?;
        checked(answer.map(drop).map_err(Error::from), &texts(ids), mode)
    }

    async fn unmark(&self, mark: &Mark, ids: &[InstanceId], until: Deadline) -> Result<(), Error> {
        let tag = Tag::builder().key(STOPPED_AT_TAG).value(mark.as_str()).build();
        let call = self.client.delete_tags().set_resources(Some(texts(ids))).tags(tag);
        self.through(until, || call.customize().config_override(once()).send()).await?.map(drop).map_err(Error::from)
    }
}

/// The calls about snapshots. Lists are read to their last page.
impl AwsEc2 {
    /// Reads the account's own snapshots that match.
    ///
    /// # Errors
    /// EC2 refused a page, did not answer in time, or answered what can't be read.
    pub async fn snapshots(&self, filters: &Filters, until: Deadline) -> Result<Vec<Snapshot>, Error> {
        let call = self.client.describe_snapshots().owner_ids("self").set_filters(Some(sent(filters)));
        let call = call.max_results(PAGE);
        every_page(|token| {
            let call = call.clone().set_next_token(token);
            async move {
                let answer = self.through(until, || call.send()).await??;
                let read = answer.snapshots.unwrap_or_default().into_iter().map(snapshot).collect::<Result<_, _>>()?;
                Ok((read, answer.next_token))
            }
        })
        .await
    }

    /// Returns which of these volumes exist, including hidden ones that an AWS service manages; takes at most 200 ids.
    ///
    /// # Errors
    /// As for [`snapshots`](Self::snapshots).
    pub async fn volumes(&self, ids: Vec<String>, until: Deadline) -> Result<BTreeSet<Box<str>>, Error> {
        // A filter, because if the call named ids, EC2 would refuse it as a whole for a single unknown one.
        let call = self.client.describe_volumes().filters(filter("volume-id", ids)).include_managed_resources(true);
        let volumes = every_page(|token| {
            let call = call.clone().set_next_token(token);
            async move {
                let answer = self.through(until, || call.send()).await??;
                let read = answer.volumes.unwrap_or_default().into_iter().map(|volume| {
                    volume.volume_id.map(String::into_boxed_str).ok_or_else(|| broken("a volume has no id".to_owned()))
                });
                Ok((read.collect::<Result<_, _>>()?, answer.next_token))
            }
        });
        Ok(volumes.await?.into_iter().collect())
    }

    /// Returns which of these snapshots the account's images use, deprecated and disabled ones included, each with such
    /// an image's id; takes at most 200 ids. The images' other snapshots are in the answer, too.
    ///
    /// # Errors
    /// As for [`snapshots`](Self::snapshots).
    pub async fn images(&self, ids: Vec<String>, until: Deadline) -> Result<BTreeMap<SnapshotId, Box<str>>, Error> {
        let call = self.client.describe_images().owners("self").include_deprecated(true).include_disabled(true);
        let call = call.filters(filter("block-device-mapping.snapshot-id", ids));
        let images = every_page(|token| {
            let call = call.clone().set_next_token(token);
            async move {
                let answer = self.through(until, || call.send()).await??;
                let mut read = Vec::new();
                for image in answer.images.unwrap_or_default() {
                    let name: Box<str> = image.image_id.as_deref().unwrap_or("an image").into();
                    let devices = image.block_device_mappings.unwrap_or_default();
                    let snapshots = devices.into_iter().filter_map(|device| device.ebs?.snapshot_id);
                    read.extend(snapshots.filter_map(|id| Some((SnapshotId::parse(&id)?, name.clone()))));
                }
                Ok((read, answer.next_token))
            }
        });
        Ok(images.await?.into_iter().collect())
    }

    /// Returns which snapshots are locked.
    ///
    /// # Errors
    /// As for [`snapshots`](Self::snapshots).
    pub async fn locked_snapshots(&self, until: Deadline) -> Result<BTreeSet<SnapshotId>, Error> {
        let locked = every_page(|token| {
            let call = self.client.describe_locked_snapshots().set_next_token(token);
            async move {
                let answer = self.through(until, || call.send()).await??;
                let read = answer.snapshots.unwrap_or_default().into_iter();
                // An unknown state counts as locked.
                let read =
                    read.filter(|it| it.lock_state() != Some(&types::LockState::Expired)).map(|it| it.snapshot_id);
                Ok((read.map(of_a_list).collect::<Result<_, _>>()?, answer.next_token))
            }
        });
        Ok(locked.await?.into_iter().collect())
    }

    /// Returns which snapshots are enabled for fast restores.
    ///
    /// # Errors
    /// As for [`snapshots`](Self::snapshots).
    pub async fn fast_restores(&self, until: Deadline) -> Result<BTreeSet<SnapshotId>, Error> {
        let fast = every_page(|token| {
            let call = self.client.describe_fast_snapshot_restores().set_next_token(token);
            async move {
                let answer = self.through(until, || call.send()).await??;
                let read = answer.fast_snapshot_restores.unwrap_or_default().into_iter();
                let off = Some(&types::FastSnapshotRestoreStateCode::Disabled);
                let read = read.filter(|it| it.state() != off).map(|it| it.snapshot_id);
                Ok((read.map(of_a_list).collect::<Result<_, _>>()?, answer.next_token))
            }
        });
        Ok(fast.await?.into_iter().collect())
    }

    /// Whether anybody else may create volumes from a snapshot.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    pub async fn is_shared(&self, id: &SnapshotId, until: Deadline) -> Result<bool, Error> {
        let call = self.client.describe_snapshot_attribute().snapshot_id(id.as_str());
        let call = call.attribute(SnapshotAttributeName::CreateVolumePermission);
        let answer = self.through(until, || call.send()).await??;
        match answer.snapshot_id() {
            Some(shown) if shown == id.as_str() => Ok(!answer.create_volume_permissions().is_empty()),
            other => Err(broken(format!("asked who may use {id}, EC2 answered about {other:?}"))),
        }
    }

    /// Writes the mark on snapshots, over any other, unless the role's policy forbids that.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    pub async fn mark_snapshots(
        &self,
        value: &str,
        ids: &[SnapshotId],
        mode: Mode,
        until: Deadline,
    ) -> Result<(), Error> {
        let (ids, tag) = mark_of(value, ids);
        let call = self.client.create_tags().set_resources(Some(ids.clone())).tags(tag).dry_run(mode == Mode::DryRun);
        checked(self.through(until, || call.send()).await?.map(drop).map_err(Error::from), &ids, mode)
    }

    /// Deletes the mark of snapshots where it has exactly this value.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    pub async fn unmark_snapshots(
        &self,
        value: &str,
        ids: &[SnapshotId],
        mode: Mode,
        until: Deadline,
    ) -> Result<(), Error> {
        let (ids, tag) = mark_of(value, ids);
        let call = self.client.delete_tags().set_resources(Some(ids.clone())).tags(tag).dry_run(mode == Mode::DryRun);
        checked(self.through(until, || call.send()).await?.map(drop).map_err(Error::from), &ids, mode)
    }

    /// Deletes a snapshot, in a single attempt: the pacer must see every throttled answer, so the caller retries.
    ///
    /// # Errors
    /// EC2 refused, or did not answer in time.
    pub async fn delete_snapshot(&self, id: &SnapshotId, mode: Mode, until: Deadline) -> Result<(), Error> {
        let call = self.client.delete_snapshot().snapshot_id(id.as_str()).dry_run(mode == Mode::DryRun);
        let answer = self.through(until, || call.customize().config_override(once()).send()).await?;
        checked(answer.map(drop).map_err(Error::from), &[id.to_string()], mode)
    }
}

/// Returns what a call about snapshots' mark names: their ids and the tag.
fn mark_of(value: &str, ids: &[SnapshotId]) -> (Vec<String>, Tag) {
    let tag = Tag::builder().key(DELETE_AFTER_TAG).value(value).build();
    (ids.iter().map(ToString::to_string).collect(), tag)
}

/// Configures a call to be made in a single attempt: the SDK must not retry it.
fn once() -> Builder {
    Builder::new().retry_config(RetryConfig::disabled())
}

/// Reads all pages; `ask` takes a page's token, and returns what is on the page and the token for the next.
async fn every_page<T, F>(ask: impl Fn(Option<String>) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, Option<String>), Error>>,
{
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let (page, next) = ask(token.clone()).await?;
        all.extend(page);
        match next.filter(|next| !next.is_empty()) {
            None => return Ok(all),
            same if same == token => return Err(broken("EC2 returned the same NextToken twice".to_owned())),
            next => token = next,
        }
    }
}

fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// Reads a snapshot's id in a list. One that can't be read fails the whole list, since it may be one that must be kept.
fn of_a_list(id: Option<String>) -> Result<SnapshotId, Error> {
    let id = id.unwrap_or_default();
    SnapshotId::parse(&id).ok_or_else(|| broken(format!("{id:?} is not a snapshot id")))
}

/// Reads a snapshot. Without an id or a start time nothing can be decided about it: then the whole answer is rejected.
fn snapshot(shown: types::Snapshot) -> Result<Snapshot, Error> {
    let id = of_a_list(shown.snapshot_id)?;
    let started = shown.start_time.and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()));
    let started = started.ok_or_else(|| broken(format!("{id} has no start time")))?;
    let bytes = shown.full_snapshot_size_in_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let volume_size = || u64::try_from(shown.volume_size.unwrap_or_default()).unwrap_or_default() * GIB;
    let tags = shown.tags.unwrap_or_default().into_iter();
    Ok(Snapshot {
        owner: shown.owner_id.unwrap_or_default().into(),
        tags: tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
        state: shown.state.as_ref().map_or("", |state| state.as_str()).into(),
        started,
        volume: shown.volume_id.unwrap_or_default().into(),
        description: shown.description.unwrap_or_default().into(),
        tier: shown.storage_tier.as_ref().map_or("", |tier| tier.as_str()).into(),
        // EC2 gives it "only for archived snapshots that are temporarily restored" (API reference, Snapshot).
        restored: shown.restore_expiry_time.is_some(),
        copied: shown.transfer_type.is_some(),
        bytes: bytes.filter(|bytes| *bytes > 0).unwrap_or_else(volume_size),
        id,
    })
}

/// Turns the answer to a dry run into what it means: yes comes as the error `DryRunOperation`, while a success means
/// that EC2 ignored DryRun and did it.
fn checked<T: Default>(answer: Result<T, Error>, ids: &[String], mode: Mode) -> Result<T, Error> {
    match (mode, answer) {
        (Mode::Live, answer) => answer,
        (Mode::DryRun, Err(error)) if error.code == "DryRunOperation" => Ok(T::default()),
        (Mode::DryRun, Err(error)) => Err(error),
        (Mode::DryRun, Ok(_)) => Err(Error {
            code: DRY_RUN_IGNORED.to_owned(),
            message: format!(
                "called with DryRun, EC2 answered as if it had done it, to {}; is this an emulator that ignores DryRun?",
                ids.join(", ")
            ),
            kind: ErrorKind::Refused { status: 200 },
        }),
    }
}

fn broken(message: String) -> Error {
    Error { code: BROKEN_ANSWER.to_owned(), message, kind: ErrorKind::NoAnswer }
}

/// What the SDK parses in place of the answer: an empty list.
const PLACEHOLDER: &str = "<DescribeInstancesResponse></DescribeInstancesResponse>";

/// Takes the body of DescribeInstances's answer before the SDK parses it, so that [`page`] can.
#[derive(Clone, Debug, Default)]
struct Unread(Arc<Mutex<Option<SdkBody>>>);

impl Unread {
    async fn body(&self) -> Result<impl AsRef<[u8]> + use<>, Error> {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(SdkBody::empty);
        match timeout(ATTEMPT, ByteStream::new(body).collect()).await {
            Ok(Ok(body)) => Ok(body.into_bytes()),
            Ok(Err(error)) => Err(broken(chain(&error))),
            Err(_) => Err(broken(format!("the answer took longer than {} s", ATTEMPT.as_secs()))),
        }
    }
}

impl Intercept for Unread {
    fn name(&self) -> &'static str {
        "Unread"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        // The SDK still reads an error for its code.
        if answer.status().is_success() {
            let body = std::mem::replace(answer.body_mut(), SdkBody::from(PLACEHOLDER));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
        Ok(())
    }
}

/// Rejects a truncated answer: the SDK would read the first half of a list as a complete, shorter list.
#[derive(Debug)]
struct Whole;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let whole = answer.body().bytes().is_none_or(|body| {
            let last_tag = body.iter().rposition(|byte| *byte == b'<').map_or(&[][..], |at| &body[at..]);
            last_tag.starts_with(b"</") && last_tag.trim_ascii_end().ends_with(b"Response>")
        });
        // An error is read for its code even if it is truncated.
        if answer.status().is_success() && !whole { Err("the answer is cut short".into()) } else { Ok(()) }
    }
}

/// What determines an instance's price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Billing {
    /// Its id.
    pub id: InstanceId,
    /// Its state.
    pub state: State,
    /// When it was last started.
    pub launch_time: DateTime<Utc>,
    /// Its instance type.
    pub instance_type: String,
    /// Its software, like `RunInstances:0002` for Windows; empty if unknown (EC2 user guide, "AMI billing information
    /// fields").
    pub usage_operation: String,
    /// `default`, `dedicated` or `host`.
    pub tenancy: String,
    /// Whether it is a Spot Instance.
    pub spot: bool,
}

impl Billing {
    fn of(instance: &types::Instance) -> Option<Self> {
        Some(Self {
            id: InstanceId::parse(instance.instance_id()?)?,
            state: state(instance.state()),
            launch_time: DateTime::from_timestamp(instance.launch_time()?.secs(), 0)?,
            instance_type: instance.instance_type()?.as_str().to_owned(),
            usage_operation: instance.usage_operation().unwrap_or_default().to_owned(),
            tenancy: instance.placement()?.tenancy()?.as_str().to_owned(),
            spot: instance.instance_lifecycle().is_some_and(|it| it.as_str() == "spot"),
        })
    }
}

fn sent(filters: &Filters) -> Vec<Filter> {
    filters.iter().map(|(name, values)| filter(name, values.clone())).collect()
}

fn texts(ids: &[InstanceId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn changes(answer: &[InstanceStateChange]) -> Vec<Change> {
    let change = |change: &InstanceStateChange| {
        Some(Change {
            id: InstanceId::parse(change.instance_id()?)?,
            from: state(change.previous_state()),
            to: state(change.current_state()),
        })
    };
    answer.iter().filter_map(change).collect()
}

fn state(state: Option<&types::InstanceState>) -> State {
    State::parse(state.and_then(|state| state.name()).map_or("", |name| name.as_str()))
}

impl From<TooLate> for Error {
    fn from(TooLate: TooLate) -> Self {
        Self {
            code: "Deadline".to_owned(),
            message: "the invocation ran out of time".to_owned(),
            kind: ErrorKind::TooLate,
        }
    }
}

impl<E> From<SdkError<E>> for Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let no_answer = |code: &str, error: &SdkError<E>| Self {
            code: code.to_owned(),
            message: chain(error),
            kind: ErrorKind::NoAnswer,
        };
        match &error {
            SdkError::TimeoutError(_) => no_answer(TIMEOUT, &error),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => no_answer(TIMEOUT, &error),
            SdkError::DispatchFailure(_) => no_answer("NoConnection", &error),
            SdkError::ServiceError(answer) => match (answer.err().code(), answer.raw().status().as_u16()) {
                // A success whose body can't be parsed.
                (None, 200..=299) => no_answer(BROKEN_ANSWER, &error),
                // EC2 always gives a code: this is a proxy or a captive portal, which says nothing about EC2.
                (None, status @ 300..=499) => Self {
                    code: format!("Http{status}"),
                    message: format!("something between Curfew and AWS answered with HTTP status {status}; a proxy?"),
                    kind: ErrorKind::NoAnswer,
                },
                (code, status) => Self {
                    code: code.map_or_else(|| format!("Http{status}"), str::to_owned),
                    message: answer.err().message().unwrap_or("AWS gave no message").to_owned(),
                    kind: ErrorKind::Refused { status },
                },
            },
            SdkError::ConstructionFailure(_) => no_answer("NotSent", &error),
            _ => no_answer(BROKEN_ANSWER, &error),
        }
    }
}

/// Returns an error's text with those of its causes, none of them twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
