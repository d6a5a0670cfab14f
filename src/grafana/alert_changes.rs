//! Saves and deletes an instance's alert rules.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::alert_template::render;
use super::alerts::{ALL_RULES, INTERVAL, Rule, RuleGroup, folder_title, in_folder, rule_path, uid};
use super::json::Elements;
use super::{Grafana, changed, path};
use crate::error::{Error, Result};
use crate::http::{Body, Request, Response};
use crate::model::alerts::{AlertRule, NewRule};
use crate::model::observed::{ActualRule, OrganisationState};
use crate::model::stack::Stack;

/// Lets users edit rules created through the API. Grafana 9 ignores this header and marks rules as created through the
/// API. Later versions refuse it for such a rule when it is saved alone.
const EDITABLE: (&str, &str) = ("X-Disable-Provenance", "true");

impl Grafana {
    /// Creates the folder for the instance's rules, unless it exists.
    ///
    /// # Errors
    /// An error from the server.
    pub(crate) async fn create_alert_folder(&self, stack: &Stack) -> Result<()> {
        let title = folder_title(&stack.instance);
        match self.create_folder(&stack.instance, &title).await {
            // The dashboard's folder may have the same title.
            Err(Error::Raced { .. }) => Ok(()),
            created => created,
        }
    }

    /// Creates a rule in the instance's folder and group. Grafana chooses the uid of some folders, so it is looked up.
    ///
    /// # Errors
    /// [`Error::Raced`] if the folder is gone or another process has created the rule, otherwise an error from the
    /// server.
    pub(crate) async fn create_alert_rule(&self, stack: &Stack, new: &NewRule) -> Result<()> {
        let doing = "create an alert rule";
        let mut rule = content(stack, self.entered(), new);
        // The mark of a finished rule is set together with the group's interval.
        rule.add_mark(BTreeMap::new(), &stack.data_source);
        rule.uid = uid(&stack.instance, new.rule);
        (rule.folder_uid, rule.group) = (self.alert_folder(stack, doing).await?, stack.instance.clone());
        rule.rest.insert("orgID".into(), json!(self.entered().unwrap_or(OrganisationState::FIRST)));
        self.send_rule(doing, "POST", ALL_RULES, &[EDITABLE], &rule).await
    }

    /// Saves the instance's group with new content of rules. Grafana saves a group as a whole and compares no version,
    /// so it is read directly before.
    ///
    /// # Errors
    /// [`Error::Raced`] if a rule is no longer as observed or created, otherwise an error from the server.
    pub(crate) async fn save_alert_rules(&self, stack: &Stack, rules: &[NewRule], sets_interval: bool) -> Result<()> {
        let doing = "save the alert rules' group";
        let folder = self.alert_folder(stack, doing).await?;
        let group_path = path(&["api", "v1", "provisioning", "folder", &folder, "rule-groups", &stack.instance]);
        let mut group: RuleGroup = self.get("read the alert rules' group", &group_path).await?.unwrap_or_default();
        for new in rules {
            let own = uid(&stack.instance, new.rule);
            let present = group.rules.0.iter_mut().find(|rule| rule.uid == own);
            replace(present.ok_or_else(|| changed(doing))?, doing, stack, self.entered(), new)?;
        }
        if sets_interval {
            group.rest.insert("interval".into(), json!(INTERVAL));
        }
        self.send_rule(doing, "PUT", &group_path, &[EDITABLE], &group).await
    }

    /// Saves a rule alone, where a user moved it. Grafana compares no version, so it is read directly before.
    ///
    /// # Errors
    /// [`Error::Raced`] if it is no longer as observed, otherwise an error from the server.
    pub(crate) async fn save_moved_alert_rule(&self, stack: &Stack, new: &NewRule) -> Result<()> {
        let doing = "update an alert rule";
        let mut moved = self.alert_rule(stack, new.rule).await?.ok_or_else(|| changed(doing))?;
        replace(&mut moved, doing, stack, self.entered(), new)?;
        let headers: &[_] = if moved.is_from_api() { &[] } else { &[EDITABLE] };
        self.send_rule(doing, "PUT", &rule_path(&moved.uid), headers, &moved).await
    }

    /// Deletes a rule. Grafana compares no version, so it is read directly before.
    ///
    /// # Errors
    /// [`Error::Raced`] if it is no longer as observed, otherwise an error from the server.
    pub(crate) async fn delete_alert_rule(&self, stack: &Stack, rule: AlertRule, observed: &ActualRule) -> Result<()> {
        let doing = "delete an alert rule";
        match self.alert_rule(stack, rule).await? {
            None => return Ok(()),
            Some(found) if found.state() == *observed => {}
            Some(_) => return Err(changed(doing)),
        }
        // Without the header, which would refuse rules that Grafana 9 marked as created through the API.
        let place = rule_path(&uid(&stack.instance, rule));
        self.expect_alerting(doing, &self.send_to_organisation(Request::new("DELETE", &place)).await?)
    }

    /// Deletes the folder that was created for the instance's rules. Grafana deletes dashboards in it, so its content is
    /// read directly before. If Grafana refuses, because of the account's rights or of content that the account does not
    /// see, a note says so and the folder stays.
    ///
    /// # Errors
    /// [`Error::Raced`] if it is not empty, otherwise an error from the server.
    pub(crate) async fn delete_alert_folder(&self, stack: &Stack) -> Result<()> {
        let doing = "delete the alert rules' folder";
        let Some(folder) = self.own_folder(&stack.instance, &folder_title(&stack.instance)).await? else {
            return Ok(());
        };
        let Elements(all) = self.get("list the alert rules", ALL_RULES).await?.unwrap_or_default();
        if in_folder(&all, &folder).next().is_some() || !self.is_empty_folder(&folder).await? {
            return Err(changed(doing));
        }
        match self.delete(doing, &path(&["api", "folders", &folder.uid])).await {
            Err(Error::Answer { status: 400 | 403, why, .. }) => {
                self.http.note(&format!("cannot {doing} {:?}, so it stays: {why}", folder.title));
                Ok(())
            }
            result => result,
        }
    }

    /// The uid of the folder for the instance's rules.
    async fn alert_folder(&self, stack: &Stack, doing: &str) -> Result<String> {
        let title = folder_title(&stack.instance);
        let gone = || Error::Raced { doing: doing.into(), why: format!("folder {title:?} is gone") };
        Ok(self.folder(&stack.instance, &title).await?.ok_or_else(gone)?.uid)
    }

    async fn send_rule(
        &self,
        doing: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: &impl Serialize,
    ) -> Result<()> {
        let body = Body::json(document);
        let answer = self.send_to_organisation(Request { headers, body, ..Request::new(method, path) }).await?;
        self.expect_alerting(doing, &answer)
    }

    fn expect_alerting(&self, doing: &str, answer: &Response) -> Result<()> {
        match answer.status {
            404 => Err(self.answered(doing, 404, format!("{} (Grafana's alerting may be off)", answer.message()))),
            409 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, answer),
        }
    }
}

fn content(stack: &Stack, organisation: Option<u64>, new: &NewRule) -> Rule {
    render(new.rule, &new.settings, new.objective, &stack.instance, &stack.data_source.uid, organisation)
}

/// Replaces the content of a rule that is still as observed, or that this run has just created.
fn replace(present: &mut Rule, doing: &str, stack: &Stack, organisation: Option<u64>, new: &NewRule) -> Result<()> {
    let state = present.state();
    let is_expected = match &new.replaces {
        ActualRule::Missing => state.is_unfinished(),
        observed => state == *observed,
    };
    if !is_expected {
        return Err(changed(doing));
    }
    present.replace_content(content(stack, organisation, new));
    present.add_mark(new.settings.fields(new.rule, new.objective), &stack.data_source);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::alerts::AlertSettings;
    use crate::samples;

    #[test]
    fn a_rule_edited_since_it_was_observed_is_not_replaced() {
        let (latency_after, silence_after) = (Duration::from_secs(30), Duration::from_secs(60));
        let settings = AlertSettings { latency_after, silence_after, content_hash: String::new() };
        let (stack, rule, objective) = (samples::stack(), AlertRule::Latency, 7_000);
        let new = |replaces| NewRule { rule, settings: settings.clone(), objective, replaces };
        let replaced = |present: &mut Rule, replaces| replace(present, "save it", &stack, None, &new(replaces));
        let mut present = content(&stack, None, &new(ActualRule::Missing));
        present.add_mark(BTreeMap::new(), &stack.data_source);
        let (observed, created) = (present.state(), present.clone());
        present.rest.insert("for".into(), json!("1h"));
        let edited = json!(present);
        for replaces in [observed, ActualRule::Missing] {
            assert!(matches!(replaced(&mut present, replaces), Err(Error::Raced { .. })));
            assert_eq!(json!(present), edited);
        }
        let observed = present.state();
        assert!(replaced(&mut present, observed).is_ok() && !present.is_edited());
        for replaces in [created.state(), ActualRule::Missing] {
            let mut present = created.clone();
            assert!(replaced(&mut present, replaces).is_ok() && !present.state().is_unfinished());
        }
        // Another run has finished it.
        assert!(matches!(replaced(&mut present, ActualRule::Missing), Err(Error::Raced { .. })));
        // A user has moved it.
        let mut moved = created.clone();
        moved.group = "theirs".into();
        assert!(matches!(replaced(&mut moved, created.state()), Err(Error::Raced { .. })));
    }
}
