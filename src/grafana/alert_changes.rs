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
use crate::model::alerts::{AlertRule, AlertRules, NewRule};
use crate::model::observed::{ActualRule, OrganisationState};
use crate::model::stack::Stack;

/// Lets users edit rules created through the API. Grafana 9 ignores this header and marks rules as created through the
/// API. Later versions refuse it for such a rule when it is saved alone.
const EDITABLE: (&str, &str) = ("X-Disable-Provenance", "true");
const SAVE_GROUP: &str = "save the alert rules' group";

impl Grafana {
    /// Creates and replaces rules. A moved rule stays in its folder.
    ///
    /// # Errors
    /// [`Error::Raced`] if a rule is no longer as observed, otherwise an error from the server.
    pub(crate) async fn save_alert_rules(&self, stack: &Stack, new: &AlertRules) -> Result<()> {
        let created = || new.rules.iter().filter(|one| one.replaces == ActualRule::Missing);
        if created().next().is_some() {
            let folder = self.folder_or_new(&stack.instance, &folder_title(&stack.instance)).await?;
            for one in created() {
                self.create_rule(stack, new, one, &folder.uid).await?;
            }
        }
        self.replace_rules(stack, new).await
    }

    async fn create_rule(&self, stack: &Stack, new: &AlertRules, one: &NewRule, folder: &str) -> Result<()> {
        let mut rule = content(stack, new, one);
        // The mark of a finished rule is set together with the group's interval.
        rule.add_mark(BTreeMap::new(), &stack.data_source);
        (rule.uid, rule.folder_uid) = (uid(&stack.instance, one.rule), folder.into());
        rule.rest.insert("ruleGroup".into(), json!(stack.instance));
        rule.rest.insert("orgID".into(), json!(self.organisation.unwrap_or(OrganisationState::FIRST)));
        self.send_rule("create an alert rule", "POST", ALL_RULES, &[EDITABLE], &rule).await
    }

    /// Replaces the content of rules: those in the instance's group together with the group, moved ones alone. Grafana
    /// saves a group as a whole and compares no version, so both are read directly before they are saved.
    async fn replace_rules(&self, stack: &Stack, new: &AlertRules) -> Result<()> {
        let folder = self.folder(&folder_title(&stack.instance)).await?.unwrap_or_default().uid;
        let group_path = path(&["api", "v1", "provisioning", "folder", &folder, "rule-groups", &stack.instance]);
        let mut group: RuleGroup = match folder.as_str() {
            // A user moved both rules.
            "" => RuleGroup::default(),
            _ => self.get("read the alert rules' group", &group_path).await?.unwrap_or_default(),
        };
        let mut changes_group = false;
        for one in &new.rules {
            let own = uid(&stack.instance, one.rule);
            if let Some(present) = group.rules.0.iter_mut().find(|rule| rule.uid == own) {
                replace(present, stack, new, one)?;
                changes_group = true;
            } else {
                let mut moved = self.alert_rule(stack, one.rule).await?.ok_or_else(raced)?;
                replace(&mut moved, stack, new, one)?;
                let headers: &[_] = if moved.is_from_api() { &[] } else { &[EDITABLE] };
                self.send_rule("update an alert rule", "PUT", &rule_path(&own), headers, &moved).await?;
            }
        }
        if !changes_group {
            return Ok(());
        }
        if new.rules.iter().any(is_unfinished) {
            group.rest.insert("interval".into(), json!(INTERVAL));
        }
        self.send_rule(SAVE_GROUP, "PUT", &group_path, &[EDITABLE], &group).await
    }

    /// Deletes rules that are still as observed, and their folder if it was created for them and is then empty. Grafana
    /// compares no version, so each rule is read again.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has changed a rule, otherwise an error from the server.
    pub(crate) async fn delete_alert_rules(&self, stack: &Stack, rules: &[(AlertRule, ActualRule)]) -> Result<()> {
        for (rule, observed) in rules {
            let doing = "delete an alert rule";
            match self.alert_rule(stack, *rule).await? {
                None => continue,
                Some(found) if found.state() == *observed => {}
                Some(_) => return Err(changed(doing)),
            }
            // Without the header, which would refuse rules that Grafana 9 marked as created through the API.
            let place = rule_path(&uid(&stack.instance, *rule));
            let answer = self.send_to_organisation(Request::new("DELETE", &place)).await?;
            self.expect_alerting(doing, &answer)?;
        }
        let Some(folder) = self.own_folder(&stack.instance, &folder_title(&stack.instance)).await? else {
            return Ok(());
        };
        let Elements(all) = self.get("list the alert rules", ALL_RULES).await?.unwrap_or_default();
        if in_folder(&all, &folder).next().is_some() { Ok(()) } else { self.delete_if_empty(&folder).await }
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

fn content(stack: &Stack, new: &AlertRules, one: &NewRule) -> Rule {
    render(one.rule, &new.settings, one.objective, &stack.instance, &stack.data_source.uid)
}

/// Replaces the content of a rule that is still as observed, or that this run has just created. A new rule that a user
/// has edited already is kept.
fn replace(present: &mut Rule, stack: &Stack, new: &AlertRules, one: &NewRule) -> Result<()> {
    if one.replaces == ActualRule::Missing && present.is_edited() {
        return Ok(());
    }
    if one.replaces != ActualRule::Missing && one.replaces != present.state() {
        return Err(raced());
    }
    present.replace_content(content(stack, new, one));
    present.add_mark(new.settings.fields(one.rule, one.objective), &stack.data_source);
    Ok(())
}

/// Whether the group still needs its interval: the rule is new, or an earlier run ended while creating it.
fn is_unfinished(one: &NewRule) -> bool {
    match &one.replaces {
        ActualRule::Present { edited, fields, .. } => !edited && fields.is_empty(),
        ActualRule::Missing | ActualRule::Clash(_) => true,
    }
}

fn raced() -> Error {
    Error::Raced { doing: SAVE_GROUP.into(), why: "another process has changed an alert rule".into() }
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
        let one = |replaces| NewRule { rule, objective, replaces };
        let new = AlertRules { settings, rules: vec![] };
        let mut present = content(&stack, &new, &one(ActualRule::Missing));
        present.add_mark(BTreeMap::new(), &stack.data_source);
        let observed = one(present.state());
        present.rest.insert("for".into(), json!("1h"));
        let edited = json!(present);
        assert!(matches!(replace(&mut present, &stack, &new, &observed), Err(Error::Raced { .. })));
        assert_eq!(json!(present), edited);
        assert!(replace(&mut present, &stack, &new, &one(ActualRule::Missing)).is_ok());
        assert_eq!(json!(present), edited, "a user has edited the new rule");
        let observed = one(present.state());
        assert!(replace(&mut present, &stack, &new, &observed).is_ok() && !present.is_edited());
    }
}
