//! Snapshots in moto, a cloud that we did not write.
//!
//! Where moto differs from AWS, as far as these tests are concerned: snapshots are only as old as the test, and it
//! knows neither locks nor fast restores, nor the filter by which images are asked for. [`Veil`] makes up for just
//! that.

use tokio::io::AsyncBufReadExt;
use tokio::task::JoinHandle;

use super::*;

const MARK: &str = "curfew:delete-after";

/// A proxy before moto that makes snapshots look a year older, shows no locks or fast restores, and shows all images.
struct Veil {
    url: String,
    listening: JoinHandle<()>,
}

impl Veil {
    async fn over(moto: &Ec2) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let moto = moto.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, moto.clone()));
            }
        });
        Self { url, listening }
    }
}

impl Drop for Veil {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Passes one call on, and its answer back.
async fn pass(client: TcpStream, moto: Ec2) {
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.to_owned(),
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut form = vec![0; length];
    from.read_exact(&mut form).await.unwrap();
    let form = String::from_utf8(form).unwrap();
    let form = reqwest::Url::parse(&format!("http://form?{form}")).unwrap();
    let all: Vec<(String, String)> = form.query_pairs().into_owned().collect();
    let action = all.iter().find(|(name, _)| name == "Action").unwrap().1.clone();
    let region = authorization.split('/').nth(2).unwrap_or(EAST).to_owned();
    let keeps = |name: &str| {
        name != "Action" && name != "Version" && (action != "DescribeImages" || !name.starts_with("Filter"))
    };
    let params: Vec<(&str, &str)> = all.iter().filter(|(name, _)| keeps(name)).map(|(k, v)| (&**k, &**v)).collect();
    let reply = match action.as_str() {
        "DescribeLockedSnapshots" | "DescribeFastSnapshotRestores" => {
            Reply { status: 200, body: format!("<{action}Response><requestId>x</requestId></{action}Response>") }
        }
        _ => moto.call(&region, &action, &params).await,
    };
    let body = match action.as_str() {
        "DescribeSnapshots" => reply
            .body
            .split("<startTime>")
            .enumerate()
            .map(|(n, part)| match (n, part.split_once('-')) {
                (1.., Some((year, rest))) => format!("<startTime>{}-{rest}", year.parse::<u16>().unwrap() - 1),
                _ => part.to_owned(),
            })
            .collect(),
        _ => reply.body,
    };
    let status = reply.status;
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = to.write_all(answer.as_bytes()).await;
}

/// Creates a volume and a tagged snapshot of it; returns both ids.
async fn snapshot(moto: &Moto, name: &str) -> (String, String) {
    let ec2 = &moto.ec2;
    let volume = ec2.call(EAST, "CreateVolume", &[("AvailabilityZone", "us-east-1a"), ("Size", "8")]).await;
    let volume = volume.first("volumeId");
    let snapshot = ec2.call(EAST, "CreateSnapshot", &[("VolumeId", &volume)]).await.first("snapshotId");
    tag(moto, &snapshot, "Name", name).await;
    tag(moto, &snapshot, "curfew", "yes").await;
    (volume, snapshot)
}

async fn tag(moto: &Moto, id: &str, key: &str, value: &str) {
    moto.set("CreateTags", &[("ResourceId.1", id), ("Tag.1.Key", key), ("Tag.1.Value", value)]).await;
}

/// Returns the ids of all snapshots with our tag.
async fn left(moto: &Moto) -> BTreeSet<String> {
    let shown =
        moto.ec2.call(EAST, "DescribeSnapshots", &[("Filter.1.Name", "tag:curfew"), ("Filter.1.Value.1", "yes")]).await;
    shown.read(|root| items(root, "snapshotSet").map(|item| text(item, "snapshotId")).collect())
}

#[tokio::test]
async fn two_nights_delete_just_the_orphan_in_a_cloud_that_we_did_not_write() {
    let moto = Moto::start().await;
    let veil = Veil::over(&moto.ec2).await;
    let mut ids = BTreeMap::new();
    for name in ["orphan", "attached", "shared", "archived", "saved", "exempt"] {
        let (volume, id) = snapshot(&moto, name).await;
        if name != "attached" {
            moto.set("DeleteVolume", &[("VolumeId", &volume)]).await;
        }
        ids.insert(name, id);
    }
    let add = [("Attribute", "createVolumePermission"), ("OperationType", "add"), ("UserId.1", "111122223333")];
    moto.set("ModifySnapshotAttribute", &[&add[..], &[("SnapshotId", ids["shared"].as_str())]].concat()).await;
    moto.set("ModifySnapshotTier", &[("SnapshotId", &ids["archived"]), ("StorageTier", "archive")]).await;
    tag(&moto, &ids["exempt"], "curfew:exempt", "true").await;
    let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &veil.url)]).await;
    let mut moto = moto;
    let instance = moto.launch(&Machine::named("server")).await;
    let image =
        moto.ec2.call(EAST, "CreateImage", &[("InstanceId", &instance), ("Name", "ami")]).await.first("imageId");
    let of_image = moto.ec2.call(EAST, "DescribeImages", &[("ImageId.1", &image)]).await.first("snapshotId");
    tag(&moto, &of_image, "curfew", "yes").await;
    tag(&moto, &of_image, "Name", "of an image").await;

    let event = json!({"action": "snapshots", "tags": {"curfew": "yes"}});
    let told = Told::of(host.invoke(event.to_string(), AMPLE).await);
    assert_eq!(told.verdict(), "complete", "{told:?}");
    assert_eq!(told.names("changed"), names(["orphan", "saved"]), "{:#}", told.report);
    for (name, reason) in [
        ("attached", "volume_exists"),
        ("shared", "shared"),
        ("archived", "archived"),
        ("exempt", "exempt"),
        ("of an image", "image"),
    ] {
        assert_eq!(told.reason(name), reason);
    }
    assert_eq!(left(&moto).await.len(), 7);

    // Two weeks later: all marks but one are due.
    let due = in_minutes(-60);
    for name in ["orphan", "attached", "shared", "archived", "exempt"] {
        tag(&moto, &ids[name], MARK, &due).await;
    }
    tag(&moto, &of_image, MARK, &due).await;
    let told = Told::of(host.invoke(event.to_string(), AMPLE).await);
    assert_eq!((told.verdict().as_str(), told.names("changed")), ("complete", names(["orphan"])), "{:#}", told.report);
    assert_eq!(told.reason("saved"), "marked");
    let mut expected: BTreeSet<String> = ids.values().cloned().collect();
    expected.remove(&ids["orphan"]);
    expected.insert(of_image);
    assert_eq!(left(&moto).await, expected);
}

#[tokio::test]
async fn a_cloud_that_knows_no_locks_is_one_in_which_nothing_is_deleted() {
    let moto = Moto::start().await;
    let (volume, id) = snapshot(&moto, "orphan").await;
    moto.set("DeleteVolume", &[("VolumeId", &volume)]).await;
    tag(&moto, &id, MARK, &in_minutes(-60)).await;
    // Against moto itself, only its age keeps it.
    let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &moto.ec2.url)]).await;
    let event = json!({"action": "snapshots", "tags": {"curfew": "yes"}, "min_age_days": 7});
    let told = Told::of(host.invoke(event.to_string(), AMPLE).await);
    assert_eq!((told.verdict().as_str(), told.reason("orphan").as_str()), ("complete", "too_young"));
    assert_eq!(left(&moto).await, [id].into());
}

#[tokio::test]
async fn both_doubles_refuse_and_show_snapshots_alike() {
    let (sim, moto) = (Sim::start().await, Moto::start().await);
    let (volume, of_moto) = snapshot(&moto, "a").await;
    let of_sim = sim.add_snapshot(ec2_sim::Snapshot::named("a").tag("curfew", "yes"));
    moto.set("DeleteVolume", &[("VolumeId", &volume)]).await;
    let both = [(Ec2::at(sim.url()), of_sim), (moto.ec2.clone(), of_moto)];
    let mut answers = Vec::new();
    for (ec2, id) in &both {
        let mut told = Vec::new();
        let by_tag = [("Owner.1", "self"), ("Filter.1.Name", "tag:curfew"), ("Filter.1.Value.1", "y*")];
        let by_id = [("Filter.1.Name", "snapshot-id"), ("Filter.1.Value.1", id.as_str())];
        let by_mark = [&by_id[..], &[("Filter.2.Name", "tag-key"), ("Filter.2.Value.1", MARK)]].concat();
        for (action, question) in [
            ("DescribeSnapshots", &by_tag[..]),
            ("DescribeSnapshots", &by_id),
            ("DescribeSnapshots", &by_mark),
            ("DeleteSnapshot", &[("SnapshotId", id), ("DryRun", "true")]),
            ("CreateTags", &[("ResourceId.1", id), ("Tag.1.Key", MARK), ("Tag.1.Value", "x")]),
            ("DescribeSnapshots", &by_mark),
            ("DeleteTags", &[("ResourceId.1", id), ("Tag.1.Key", MARK), ("Tag.1.Value", "y")]),
            ("DescribeSnapshots", &by_mark),
            ("DeleteTags", &[("ResourceId.1", id), ("Tag.1.Key", MARK), ("Tag.1.Value", "x")]),
            ("DescribeSnapshots", &by_mark),
            ("DescribeVolumes", &[("Filter.1.Name", "volume-id"), ("Filter.1.Value.1", "vol-0123456789abcdef0")]),
            ("DescribeSnapshotAttribute", &[("SnapshotId", id), ("Attribute", "createVolumePermission")]),
            ("DeleteSnapshot", &[("SnapshotId", "snap-0123456789abcdef0")]),
            ("DeleteSnapshot", &[("SnapshotId", id)]),
            ("DescribeSnapshots", &by_tag),
            ("DeleteSnapshot", &[("SnapshotId", id)]),
        ] {
            let reply = ec2.call(EAST, action, question).await;
            let shown: Vec<String> = reply.read(|root| {
                let snapshots = items(root, "snapshotSet").map(|item| {
                    let tier = text(item, "storageTier");
                    format!("{} {} {tier} {:?}", text(item, "status"), text(item, "ownerId"), tags(item))
                });
                let volumes = items(root, "volumeSet").map(|item| text(item, "volumeId"));
                let others = items(root, "createVolumePermission").map(|item| text(item, "userId"));
                snapshots.chain(volumes).chain(others).collect()
            });
            told.push(format!("{action} {} {} {shown:?}", reply.status, reply.first("Code")));
        }
        answers.push(told);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].last().unwrap(), "DeleteSnapshot 400 InvalidSnapshot.NotFound []");
}
