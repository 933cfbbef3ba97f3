//! `vectors/digest.json` and `vectors/ids.json`.

use crate::vectors::{cases, key, list, name};
use gbsync_core::digest::{Digest, RowsDigest};
use gbsync_core::id::{GroupId, GroupType, RecordKey, Seq};

#[test]
fn groups_have_the_digests_of_the_vectors() {
    for case in list("digest.json", "groups", 3) {
        let digest = Digest::of(case["changes"].as_str().unwrap().as_bytes());
        assert_eq!(digest.to_string(), case["digest"].as_str().unwrap(), "{}", name(&case));
    }
}

#[test]
fn entries_have_the_chains_of_the_vectors() {
    for case in list("digest.json", "chains", 4) {
        let previous = Digest::from_hex(case["previous"].as_str().unwrap()).unwrap();
        let group = GroupId::new(case["group"].as_str().unwrap()).unwrap();
        let chain = previous.chained(Seq(case["seq"].as_u64().unwrap()), &group, case["changes"].as_str().unwrap());
        assert_eq!(chain.to_string(), case["chain"].as_str().unwrap(), "{}", name(&case));
    }
}

#[test]
fn rows_have_the_digests_of_the_vectors() {
    for case in list("digest.json", "rows", 5) {
        let mut digest = RowsDigest::default();
        let rows = case["rows"].as_array().unwrap();
        assert!(rows.is_sorted_by_key(key), "{}: a vector gives rows in order", name(&case));
        for row in rows {
            digest.add(&key(row), Seq(row["version"].as_u64().unwrap()), row["payload"].as_str().unwrap());
        }
        let (count, digest) = digest.finish();
        assert_eq!(
            (count, digest.to_string().as_str()),
            (rows.len() as u64, case["digest"].as_str().unwrap()),
            "{}",
            name(&case)
        );
    }
}

#[test]
fn group_ids_are_minted_as_the_vectors_say() {
    for case in cases("ids.json", 15) {
        let uuid = case["uuid"].as_str().unwrap();
        let minted = match case["entity"].as_str() {
            Some(entity) => {
                let key = RecordKey::new(entity, case["record"].as_str().unwrap()).unwrap();
                Ok(GroupId::mint_single(&key, uuid))
            }
            None => {
                let group_type = GroupType::new(case["type"].as_str().unwrap()).unwrap();
                GroupId::mint(&group_type, case["root"].as_str().unwrap(), uuid)
            }
        };
        assert_eq!(minted.as_ref().ok().map(GroupId::as_str), case["id"].as_str(), "{}", name(&case));
    }
}
