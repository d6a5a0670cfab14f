//! The remembered settings of an instance: an empty volume whose label contains every supplied setting.
//!
//! Labels cannot be changed, so a change creates the volume with the next number and removes the
//! previous one.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{Volume as EngineVolume, VolumeCreateRequest};
use bollard::query_parameters::ListVolumesOptionsBuilder;

use super::{Docker, labels};
use crate::error::{Error, Result};
use crate::model::observed::StoredSettings;
use crate::model::stack::{Remembered, RestoreRecord, UnfinishedRestore};
use crate::model::upgrade::Upgrade;

/// The number of attempts if other processes take the next number first.
const MAX_ATTEMPTS: usize = 5;

impl Docker {
    /// The data and settings volumes that carry the instance's label.
    pub(super) async fn volumes_of(&self, instance: &str) -> Result<Vec<EngineVolume>> {
        let filter = HashMap::from([("label".to_string(), vec![format!("{}={instance}", labels::INSTANCE)])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let found = self.call("list the instance's volumes", self.client.list_volumes(Some(options))).await?;
        Ok(found.volumes.unwrap_or_default())
    }

    /// The remembered settings.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn stored_settings(&self, instance: &str) -> Result<StoredSettings> {
        Ok(among(&self.volumes_of(instance).await?, instance))
    }

    /// Writes all settings as a whole and removes the previous copy. The record of an upgrade is kept.
    ///
    /// # Errors
    /// [`Error::Raced`] if the stored values are not those to replace, [`Error::Foreign`] if another owner's container
    /// uses the previous copy, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn save_settings(
        &self,
        instance: &str,
        values: &BTreeMap<String, Remembered>,
        replaces: Option<&BTreeMap<String, Remembered>>,
    ) -> Result<()> {
        self.save(instance, |stored| {
            if stored.values.as_ref() != replaces && stored.values.as_ref() != Some(values) {
                return Err("another process has changed them");
            }
            Ok(StoredSettings { values: Some(values.clone()), ..stored.clone() })
        })
        .await
    }

    /// Writes the first settings of an instance with the record of a started restore, or takes over
    /// the unfinished restore that it replaces, but no other. Of two concurrent runs, one succeeds.
    ///
    /// # Errors
    /// [`Error::Raced`] if other settings exist by now, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn begin_restore(&self, instance: &str, record: &RestoreRecord) -> Result<()> {
        self.save(instance, |stored| {
            expect_replaceable(stored, &record.restore, record.replaced.as_ref())?;
            let (values, restore) = (Some(record.values.clone()), Some(record.restore.clone()));
            Ok(StoredSettings { values, restore, ..StoredSettings::default() })
        })
        .await
    }

    /// Writes the settings of an instance whose data is completely restored.
    ///
    /// # Errors
    /// [`Error::Raced`] if another run took over the restore, [`Error::Docker`] if the engine
    /// returns an error.
    pub(crate) async fn finish_restore(&self, instance: &str, record: &RestoreRecord) -> Result<()> {
        self.save(instance, |stored| match &stored.restore {
            Some(noted) if *noted == record.restore => {
                Ok(StoredSettings { values: Some(record.values.clone()), ..StoredSettings::default() })
            }
            _ => Err("another run took over the restore"),
        })
        .await
    }

    /// Records the state of an upgrade together with the current settings; `None` removes the record.
    ///
    /// # Errors
    /// [`Error::Raced`] if the settings are gone, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn save_upgrade(&self, instance: &str, upgrade: Option<&Upgrade>) -> Result<()> {
        self.save(instance, |stored| match &stored.values {
            Some(_) => Ok(StoredSettings { upgrade: upgrade.cloned(), ..stored.clone() }),
            None => Err("another process removed them"),
        })
        .await
    }

    /// Writes settings derived from the current ones. The newest copy is valid: a run whose number
    /// was taken by another process uses the next one.
    async fn save(
        &self,
        instance: &str,
        change: impl Fn(&StoredSettings) -> Result<StoredSettings, &'static str>,
    ) -> Result<()> {
        let raced = |why: &str| Error::Raced { doing: "save the settings".into(), why: why.into() };
        // Volumes of other owners may have these names; higher numbers are free.
        let mut above = 0;
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.stored_settings(instance).await?;
            let wanted = change(&stored).map_err(raced)?;
            let wanted = StoredSettings { numbers: stored.numbers.clone(), ..wanted };
            let values = wanted.values.clone().unwrap_or_default();
            let own = labels::of_settings(instance, &values, wanted.upgrade.as_ref(), wanted.restore.as_ref());
            let newest = stored.numbers.last().copied();
            let number = match newest {
                Some(number) if stored == wanted => number,
                newest => newest.unwrap_or(0).max(above) + 1,
            };
            let name = name(instance, number);
            if newest != Some(number) {
                let request = VolumeCreateRequest {
                    name: Some(name.clone()),
                    labels: Some(own.clone()),
                    ..VolumeCreateRequest::default()
                };
                let doing = format!("create volume {name}");
                // The engine also reports success for an existing volume, and returns that one.
                let made = self.change(&doing, |client| async move { client.create_volume(request).await }).await?;
                if made.labels != own {
                    if !labels::belongs(Some(&made.labels), instance) {
                        above = number;
                    }
                    continue;
                }
            }
            for older in stored.numbers.into_iter().filter(|older| *older < number) {
                self.delete_volume(instance, &self::name(instance, older)).await?;
            }
            return Ok(());
        }
        Err(raced("other processes save settings of this instance at the same time"))
    }

    /// Removes all remembered settings, the oldest first, so that an outdated copy is never the
    /// last one left.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's container uses one, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn remove_settings(&self, instance: &str) -> Result<()> {
        for number in self.stored_settings(instance).await?.numbers {
            self.delete_volume(instance, &name(instance, number)).await?;
        }
        Ok(())
    }
}

/// Checks that a restore may replace the stored settings: there are none, or their record is its
/// own or the replaced one.
fn expect_replaceable(
    stored: &StoredSettings,
    restore: &UnfinishedRestore,
    replaced: Option<&UnfinishedRestore>,
) -> Result<(), &'static str> {
    match &stored.restore {
        Some(noted) if noted == restore || Some(noted) == replaced => Ok(()),
        Some(_) => Err("another run is restoring that instance"),
        None if stored.numbers.is_empty() => Ok(()),
        None => Err("another run has created that instance"),
    }
}

fn name(instance: &str, number: u64) -> String {
    format!("{instance}-settings-{number}")
}

/// The settings volumes of an instance.
pub(super) fn among(volumes: &[EngineVolume], instance: &str) -> StoredSettings {
    let mut found: Vec<(u64, &EngineVolume)> = volumes
        .iter()
        .filter(|volume| labels::belongs(Some(&volume.labels), instance))
        .filter_map(|volume| {
            let number = volume.name.strip_prefix(instance)?.strip_prefix("-settings-")?.parse().ok()?;
            (volume.name == name(instance, number)).then_some((number, volume))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    let newest = found.last().map(|(_, volume)| &volume.labels);
    StoredSettings {
        values: newest.and_then(labels::settings),
        upgrade: newest.and_then(labels::upgrade),
        restore: newest.and_then(labels::restore),
        numbers: found.into_iter().map(|(number, _)| number).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_replaces_nothing_but_the_confirmed_unfinished_one() {
        let run = |id: &str| UnfinishedRestore {
            id: id.into(),
            archive: "/saved".into(),
            digest: "d".into(),
            machine: "box".into(),
            process: 7,
            ..UnfinishedRestore::default()
        };
        let stored = |restore: Option<UnfinishedRestore>| StoredSettings {
            restore,
            numbers: vec![1],
            ..StoredSettings::default()
        };
        let (own, other, third) = (run("own"), run("other"), run("third"));
        assert_eq!(expect_replaceable(&StoredSettings::default(), &own, None), Ok(()));
        assert_eq!(expect_replaceable(&stored(Some(own.clone())), &own, None), Ok(()));
        assert_eq!(expect_replaceable(&stored(Some(other.clone())), &own, Some(&other)), Ok(()));
        for (restore, replaced) in [(Some(other.clone()), None), (Some(third), Some(&other)), (None, Some(&other))] {
            assert!(expect_replaceable(&stored(restore), &own, replaced).is_err());
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_container_that_prevents_the_removal_of_settings_is_named() {
        let volume = |number| {
            let values = [("database".to_string(), Remembered { value: "d".into(), from_file: false })].into();
            let labels = labels::of_settings("x", &values, None, None);
            serde_json::json!({
                "Name": name("x", number), "Driver": "local", "Mountpoint": "/", "Labels": labels, "Scope": "local",
                "Options": {}
            })
        };
        let volumes = serde_json::json!({"Volumes": [volume(1), volume(2)]}).to_string();
        let containers = serde_json::json!([{
            "Id": "1", "Names": ["/backup"], "State": "exited", "Mounts": [{"Type": "volume", "Name": name("x", 1)}]
        }]);
        let containers = containers.to_string();
        let answer = move |request: &str| match request {
            delete if delete.starts_with("DELETE") => (409, r#"{"message": "volume is in use - [1]"}"#.into()),
            list if list.contains("/volumes?") => (200, volumes.clone()),
            _ => (200, containers.clone()),
        };
        let (_folder, docker) = crate::engine::fake::engine(answer).await;
        let values = docker.stored_settings("x").await.unwrap().values.unwrap();
        for result in [docker.remove_settings("x").await, docker.save_settings("x", &values, Some(&values)).await] {
            let error = result.unwrap_err();
            assert_eq!(error.to_string(), "cannot delete volume x-settings-1: container backup uses it");
            assert!(
                error.hint(&crate::model::invocation::Invocation::default()).contains("`docker rm --force backup`")
            );
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn settings_that_are_not_as_read_are_not_replaced() {
        let values = |database: &str| {
            BTreeMap::from([("database".to_string(), Remembered { value: database.into(), from_file: false })])
        };
        // The volume's label: readable, unreadable, and no volume.
        for (text, read) in
            [(Some(r#"{"database":{"value":"d","from":"user"}}"#), true), (Some("{"), false), (None, false)]
        {
            let labels = serde_json::json!({labels::INSTANCE: "x", labels::SETTINGS: text});
            let volume = serde_json::json!({
                "Name": "x-settings-1", "Driver": "local", "Mountpoint": "/", "Labels": labels, "Scope": "local",
                "Options": {}
            });
            let list: Vec<_> = text.map(|_| volume).into_iter().collect();
            let volumes = serde_json::json!({"Volumes": list}).to_string();
            let (_folder, docker) = crate::engine::fake::engine(move |request: &str| {
                assert!(request.starts_with("GET"), "{request}");
                (200, volumes.clone())
            })
            .await;
            let stored = docker.stored_settings("x").await.unwrap().values;
            assert_eq!(stored, read.then(|| values("d")));
            let another = if read { None } else { Some(values("d")) };
            let mut results = vec![docker.save_settings("x", &values("new"), another.as_ref()).await];
            if read {
                results.push(docker.save_settings("x", &values("new"), Some(&values("other"))).await);
            } else {
                results.push(docker.save_upgrade("x", None).await);
            }
            assert!(results.iter().all(|result| matches!(result, Err(Error::Raced { .. }))), "{text:?}: {results:?}");
        }
    }

    #[test]
    fn only_the_newest_copy_is_valid_even_if_it_cannot_be_read() {
        let volume = |name: &str, instance: &str, text: &str| {
            let labels = [(labels::INSTANCE, instance), (labels::SETTINGS, text)];
            let labels = labels.map(|(name, value)| (name.to_string(), value.to_string())).into();
            EngineVolume { name: name.into(), labels, ..EngineVolume::default() }
        };
        let database = |name: &str| format!(r#"{{"database":{{"value":"{name}","from":"user"}}}}"#);
        let all = [
            volume("x-settings-10", "x", &database("new")),
            volume("x-settings-9", "x", &database("old")),
            volume("x-settings-11", "y", &database("theirs")),
            volume("x-settings-011", "x", &database("odd")),
            volume("x-influxdb", "x", ""),
        ];
        let stored = among(&all, "x");
        assert_eq!(stored.numbers, [9, 10]);
        assert_eq!(stored.values.unwrap()["database"].value, "new");
        let broken = among(&[all[1].clone(), volume("x-settings-10", "x", "{{{")], "x");
        assert_eq!((broken.numbers.len(), broken.values), (2, None));
    }
}
