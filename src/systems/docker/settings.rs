//! What an instance remembers: an empty volume whose label holds every given setting.
//!
//! Labels cannot be changed, so a change makes the volume of the next number and removes the one
//! before. Must not know what a setting means.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{Volume as EngineVolume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};

use super::{Docker, labels};
use crate::core::observed::StoredSettings;
use crate::core::stack::Remembered;
use crate::core::upgrade::Upgrade;
use crate::error::{Error, Result};

/// How often the next number is tried when somebody else has just taken it.
const MAX_ATTEMPTS: usize = 5;

impl Docker {
    /// The volumes that carry the instance's label, those with data and those with settings.
    pub(super) async fn volumes_of(&self, instance: &str) -> Result<Vec<EngineVolume>> {
        let filter = HashMap::from([("label".to_string(), vec![format!("{}={instance}", labels::INSTANCE)])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let found = self.call("list the instance's volumes", self.client.list_volumes(Some(options))).await?;
        Ok(found.volumes.unwrap_or_default())
    }

    /// What the instance remembers.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine does not answer.
    pub async fn stored_settings(&self, instance: &str) -> Result<StoredSettings> {
        Ok(among(&self.volumes_of(instance).await?, instance))
    }

    /// Writes all settings as a whole and removes what was remembered before; what is noted of an upgrade stays, and
    /// with `keeps_retention` the stored retention.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn save_settings(
        &self,
        instance: &str,
        values: &BTreeMap<String, Remembered>,
        keeps_retention: bool,
    ) -> Result<()> {
        let change = |stored: &StoredSettings| {
            let values = if keeps_retention { stored.keep_retention(values) } else { values.clone() };
            Some((values, stored.upgrade.clone()))
        };
        self.save(instance, change).await
    }

    /// Notes how far an upgrade is, beside the settings as they are, or these where there are none; `None` forgets
    /// it.
    ///
    /// # Errors
    /// [`Error::Raced`] where the settings are gone meanwhile, [`Error::Docker`] when the engine refuses.
    pub async fn save_upgrade(
        &self,
        instance: &str,
        values: Option<&BTreeMap<String, Remembered>>,
        upgrade: Option<&Upgrade>,
    ) -> Result<()> {
        self.save(instance, |stored| Some((stored.values.as_ref().or(values)?.clone(), upgrade.cloned()))).await
    }

    /// Writes what is made of what is remembered. The newest wins: who finds that somebody else took the number
    /// takes the next one.
    async fn save(
        &self,
        instance: &str,
        change: impl Fn(&StoredSettings) -> Option<(BTreeMap<String, Remembered>, Option<Upgrade>)>,
    ) -> Result<()> {
        let raced = |why: &str| Error::Raced { doing: "save the settings".into(), why: why.into() };
        // Somebody else's volumes may have our names; the numbers above are free.
        let mut above = 0;
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.stored_settings(instance).await?;
            let Some((values, upgrade)) = change(&stored) else { return Err(raced("somebody removed them")) };
            let own = labels::of_settings(instance, &values, upgrade.as_ref());
            let newest = stored.numbers.last().copied();
            let number = match newest {
                Some(number) if stored.values.as_ref() == Some(&values) && stored.upgrade == upgrade => number,
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
                // The engine says yes to one that exists, and answers with that one.
                let made = self.call(&doing, self.client.create_volume(request)).await?;
                if made.labels != own {
                    if !labels::belongs(Some(&made.labels), instance) {
                        above = number;
                    }
                    continue;
                }
            }
            for older in stored.numbers.into_iter().filter(|older| *older < number) {
                self.remove_settings_volume(instance, older).await?;
            }
            return Ok(());
        }
        Err(raced("others save settings of this instance, too"))
    }

    /// Removes everything that the instance remembers, the oldest first: what was replaced must
    /// not be the last that is left.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn remove_settings(&self, instance: &str) -> Result<()> {
        for number in self.stored_settings(instance).await?.numbers {
            self.remove_settings_volume(instance, number).await?;
        }
        Ok(())
    }

    async fn remove_settings_volume(&self, instance: &str, number: u64) -> Result<()> {
        let name = name(instance, number);
        let request = self.client.remove_volume(&name, None::<RemoveVolumeOptions>);
        self.find(&format!("remove volume {name}"), request).await.map(drop)
    }
}

fn name(instance: &str, number: u64) -> String {
    format!("{instance}-settings-{number}")
}

/// The settings among the volumes of an instance.
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
    let (values, upgrade) = (newest.and_then(labels::settings), newest.and_then(labels::upgrade));
    StoredSettings { numbers: found.into_iter().map(|(number, _)| number).collect(), values, upgrade }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_holds_and_what_cannot_be_read_is_no_excuse_for_an_older_one() {
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
