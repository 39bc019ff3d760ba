//! EC2's answers about snapshots, volumes and images.

use super::Xml;
use crate::storage::{Snapshot, Told};

pub(super) fn told(xml: &mut Xml, told: &Told) {
    match told {
        Told::Snapshots(page, next) => {
            xml.list("snapshotSet", page, snapshot);
            if let Some(token) = next {
                xml.leaf("nextToken", token);
            }
        }
        Told::Volumes(volumes) => xml.list("volumeSet", volumes, |xml, volume| {
            xml.leaf("volumeId", &volume.id);
            xml.leaf("status", "available");
        }),
        Told::Images(images) => xml.list("imagesSet", images, |xml, image| {
            xml.leaf("imageId", &image.id);
            xml.leaf("imageState", "available");
            xml.list("blockDeviceMapping", [image], |xml, image| {
                xml.leaf("deviceName", "/dev/xvda");
                xml.node("ebs", |xml| xml.leaf("snapshotId", &image.snapshot));
            });
        }),
        Told::Attribute(snapshot) => {
            xml.leaf("snapshotId", &snapshot.id);
            xml.list("createVolumePermission", &snapshot.shared_with, |xml, who| match who.as_str() {
                "all" => xml.leaf("group", "all"),
                account => xml.leaf("userId", account),
            });
        }
        Told::Locked(snapshots) => xml.list("snapshotSet", snapshots, |xml, snapshot| {
            xml.leaf("ownerId", &snapshot.account);
            xml.leaf("snapshotId", &snapshot.id);
            xml.leaf("lockState", snapshot.lock.as_deref().unwrap_or_default());
        }),
        Told::Fast(snapshots) => xml.list("fastSnapshotRestoreSet", snapshots, |xml, snapshot| {
            xml.leaf("snapshotId", &snapshot.id);
            xml.leaf("availabilityZone", &format!("{}a", snapshot.region));
            xml.leaf("state", snapshot.fast.as_deref().unwrap_or_default());
        }),
        Told::Deleted => xml.leaf("return", "true"),
    }
}

fn snapshot(xml: &mut Xml, snapshot: &Snapshot) {
    xml.leaf("snapshotId", &snapshot.id);
    xml.leaf("volumeId", &snapshot.volume);
    xml.leaf("status", &snapshot.state);
    xml.leaf("startTime", &snapshot.started.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    xml.leaf("progress", "100%");
    xml.leaf("ownerId", &snapshot.account);
    xml.leaf("volumeSize", &snapshot.gib.to_string());
    xml.leaf("description", &snapshot.description);
    xml.leaf("storageTier", &snapshot.tier);
    if let Some(until) = snapshot.restored {
        xml.leaf("restoreExpiryTime", &until.format("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    if let Some(transfer) = &snapshot.transfer {
        xml.leaf("transferType", transfer);
    }
    if let Some(bytes) = snapshot.bytes {
        xml.leaf("fullSnapshotSizeInBytes", &bytes.to_string());
    }
    xml.list("tagSet", &snapshot.tags, |xml, (key, value)| {
        xml.leaf("key", key);
        xml.leaf("value", value);
    });
}
