//! Advice for the user that follows from a plan and its observation.

use super::alerts::Alerts;
use super::invocation::{Invocation, shell_word, typed_option};
use super::observed::{
    Catalogue, ChosenOrganisation, ContainerState, DataSourceState, Observed, QueryFault, Unreadable, VolumeState,
};
use super::plan::{Blocker, Finding, Item, Plan, Resource};
use super::role::Role;
use super::stack::{DesiredDataSource, DesiredUserDashboard, Need, NeededObject, Stack};
use super::upgrade::UpgradeState;

/// The hints that follow from the stack, its plan and its observation, the most important first.
pub(super) fn hints(
    stack: &Stack,
    seen: &Observed,
    plan: &Plan,
    invocation: &Invocation,
    on_user_dashboards: impl Iterator<Item = String>,
) -> Vec<String> {
    let mut hints: Vec<String> = plan.items.iter().filter_map(|item| hint(stack, item)).collect();
    if hints.is_empty() && !plan.in_sync() {
        hints.push(format!("`{}` repairs this", invocation.command("up")));
    }
    let replace = invocation.command("up --overwrite-dashboard");
    let edited = plan.items.iter().filter(|item| item.finding == Finding::Edited);
    hints.extend(edited.map(|item| edit(stack, item, &replace)));
    let is_new = seen.grafana_state().is_some_and(|grafana| grafana.data_source == DataSourceState::Missing);
    hints.extend(chosen_organisation(seen).filter(|_| is_new && plan.blocker().is_none()));
    hints.extend(lost_volumes(stack, seen, plan));
    hints.extend(lookalikes(seen));
    hints.extend(kept(plan));
    hints.extend(unreadable_dashboards(stack));
    hints.extend(on_user_dashboards);
    hints.extend(failed_image(stack));
    hints.extend(unproven_image(stack, seen));
    hints
}

/// The note that a run with another organisation leaves the objects in the remembered one. Without a name, both can be the
/// same.
pub(crate) fn left_organisation(stack: &Stack) -> Option<String> {
    let settings = stack.settings.as_ref()?;
    let before = settings.merged_from.as_ref()?;
    let value = |name: &str| before.get(name).map(|one| one.value.as_str());
    let is_same_server = value("grafana-url") == settings.values.get("grafana-url").map(|one| one.value.as_str());
    let (left, entered) = (value("grafana-org")?, stack.organisation.as_ref()?);
    (is_same_server && left != entered).then(|| {
        format!("objects of {} in Grafana's organisation {left:?} stay as they are: delete them there", stack.instance)
    })
}

/// The way back to the image before one that is not accepted yet. A tag that was moved to it leads to the new image only.
fn unproven_image(stack: &Stack, seen: &Observed) -> Option<String> {
    let upgrade = seen.settings.upgrade.as_ref().filter(|upgrade| upgrade.state == UpgradeState::Unproven)?;
    stack.container(Role::Grafana)?;
    let previous = &upgrade.from.name;
    Some(if upgrade.must_roll_back(previous) {
        let back = stack.command(&format!("up --grafana-image {previous}"));
        format!("`{back}` restores the previous Grafana with its database")
    } else {
        format!(
            "`{}` accepts the new image behind {previous} if it works, and then deletes the copy of the previous database",
            stack.command("up")
        )
    })
}

/// The hint that a user's edit is kept, with the command that replaces it.
fn edit(stack: &Stack, item: &Item, replace: &str) -> String {
    match item.resource {
        Resource::Dashboard(id) => {
            let (_, title, _) = stack.dashboard_identity(id);
            format!("the dashboard {title:?} was edited and is kept; `{replace}` replaces it")
        }
        _ if stack.alerts == Alerts::Off => "edited alert rules are kept: delete them in Grafana".into(),
        _ => format!("alert rules were edited and are kept; `{replace}` replaces them"),
    }
}

fn hint(stack: &Stack, item: &Item) -> Option<String> {
    match (&item.finding, item.resource) {
        (Finding::Blocked(Blocker { hint, .. }), _) => Some(hint.clone()),
        (Finding::Failing(why), Resource::Server(role)) => Some(way_to_read(stack, role, why)),
        (Finding::Failing(why) | Finding::Unreadable(why), _) => Some(way_to_read(stack, Role::Grafana, why)),
        _ => None,
    }
}

/// The hint for an answer whose content cannot be used.
pub(crate) const UNUSABLE_CONTENT: &str = "-v shows the request: check that no proxy answers in the server's place, and \
                                           that the object is smaller than 16 MiB";

/// The hint for an answer that leads to another address.
pub(crate) const REDIRECTED: &str = "the server redirects this request: check the address (--grafana-url, \
                                     --influxdb-url); if a proxy in front of the server asks for its own login, name \
                                     the server's address behind that proxy, or, if the proxy lets tokens of Grafana \
                                     pass, use --grafana-token-file";

/// The hint if a server answers but does not return an object.
pub(crate) fn way_to_read(stack: &Stack, role: Role, unreadable: &Unreadable) -> String {
    match unreadable.status {
        0 => UNUSABLE_CONTENT.into(),
        300..400 => REDIRECTED.into(),
        403 => format!("sign in to {} with an account that can read it, such as an administrator's", role.title()),
        _ if stack.container(role).is_some() => {
            format!("check the log with `{}`", stack.command(&format!("logs {role}")))
        }
        _ => format!("check {}'s log", role.title()),
    }
}

/// The warnings about published addresses that other hosts can reach.
pub(crate) fn open_access(stack: &Stack) -> impl Iterator<Item = String> {
    let warning = |role: Role| {
        let config = &stack.container(role)?.config;
        let at = config.is_open().then_some(config.publish)?;
        Some(format!("{} listens on {at} {}", role.title(), role.facts().open_access))
    };
    Role::ALL.into_iter().filter_map(warning)
}

/// The warning that other hosts on the engine's network can reach ports published on loopback, with
/// the command that prevents it. The command's rule drops new connections forwarded to the
/// instance's network, so the engine's host can still connect.
pub(crate) fn exposed_loopback(stack: &Stack, seen: &Observed) -> Option<String> {
    let engine = seen.engine.as_ref().filter(|engine| engine.exposes_loopback() == Some(true))?;
    let on_loopback = |role: &Role| stack.container(*role).is_some_and(|spec| !spec.config.is_open());
    let roles: Vec<Role> = Role::ALL.into_iter().filter(on_loopback).collect();
    let bridge = format!("br-{}", seen.network.id()?.chars().take(12).collect::<String>());
    let ports: Vec<String> = roles.iter().map(|role| role.port().to_string()).collect();
    let titles: Vec<&str> = roles.iter().map(|role| role.title()).collect();
    (!roles.is_empty()).then(|| {
        format!(
            "other hosts on the engine's network can reach {} on loopback: this is Docker {}, and Docker 28.0 closes \
             that; until the next `down`, `sudo iptables --insert DOCKER-USER ! --in-interface {bridge} \
             --out-interface {bridge} --protocol tcp --match multiport --destination-ports {} --match conntrack \
             --ctstate NEW --jump DROP` on the engine's host closes it as well (docs/security.md)",
            titles.join(" and "),
            engine.version,
            ports.join(","),
        )
    })
}

/// A hint for each container that carries the instance's labels but does not belong to it.
pub(super) fn lookalikes(seen: &Observed) -> impl Iterator<Item = String> + '_ {
    seen.lookalikes.iter().map(|name| {
        format!(
            "container {name} carries this instance's labels but was not created by clipper-metrics; it is left alone"
        )
    })
}

/// There is no instance of that name; the name may be a typing error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoInstance {
    pub(crate) what: String,
    /// The other instances, and the command that creates this one.
    pub(crate) hint: String,
}

/// Whether the engine has nothing of the instance. With an external server, an instance can consist of that alone.
pub(crate) fn no_instance(stack: &Stack, seen: &Observed) -> Option<NoInstance> {
    let is_absent = |role: &Role| {
        let server = seen.server(*role);
        stack.container(*role).is_some()
            && server.container == ContainerState::Absent
            && server.volume == VolumeState::Absent
    };
    if !seen.settings.numbers.is_empty() || !Role::ALL.iter().all(is_absent) {
        return None;
    }
    let creation = format!("`{}` creates {}", stack.command("up"), stack.instance);
    let hint = if seen.others.is_empty() {
        creation
    } else {
        format!("other instances on this engine: {} (choose one with --name); {creation}", seen.others.join(", "))
    };
    Some(NoInstance { what: format!("no instance called {} exists on this engine", stack.instance), hint })
}

/// A sentence for each volume that `up` creates although the instance has been set up: its data is lost. A first `up` that
/// was killed can leave one volume as well. A volume that the remembered settings did not need was never there.
pub(crate) fn lost_volumes(stack: &Stack, seen: &Observed, plan: &Plan) -> Vec<String> {
    if plan.blocker().is_some() {
        return Vec::new();
    }
    let before = stack.settings.as_ref().and_then(|settings| settings.merged_from.as_ref());
    let was_external = |role: Role| before.is_some_and(|before| before.contains_key(&format!("{role}-url")));
    let has_volume = |role: &Role| matches!(seen.server(*role).volume, VolumeState::Ours { .. });
    let lost = |role: Role| {
        let server = seen.server(role);
        let is_new = server.volume == VolumeState::Absent && server.container == ContainerState::Absent;
        stack.container(role).filter(|_| is_new && !was_external(role))?;
        let mut others = Role::ALL.into_iter().filter(|other| *other != role);
        let proof = match others.clone().find(has_volume) {
            Some(other) => format!("volume {} does", other.object_name(&stack.instance)),
            None if before.is_some() && others.any(|other| stack.container(other).is_none()) => {
                format!("the settings of {} do", stack.instance)
            }
            None => return None,
        };
        let (volume, data) = (role.object_name(&stack.instance), role.facts().data);
        Some(format!("volume {volume} does not exist, although {proof}: `up` creates it anew, without earlier {data}"))
    };
    Role::ALL.into_iter().filter_map(lost).collect()
}

/// Parts of a user's dashboard that cannot work in this Grafana, and changes made for its import.
pub(super) fn limitations(own: &DesiredUserDashboard, catalogue: Option<&Catalogue>) -> Vec<String> {
    let mut found = own.notes.clone();
    for Need { by, object } in &own.needs {
        let why = match (object, catalogue) {
            (NeededObject::DataSource(name), Some(catalogue)) if !catalogue.has_source(name) => {
                format!("{by} uses the data source {name:?}, which Grafana does not have: create it there")
            }
            (NeededObject::PanelType(kind), Some(catalogue)) if catalogue.lacks_panel_type(kind) => {
                format!("{by} needs {}", missing_plugin(kind))
            }
            _ => continue,
        };
        found.push(why);
    }
    found
}

/// The message about a missing panel plugin, with instructions to install it.
fn missing_plugin(kind: &str) -> String {
    format!("the panel plugin {kind:?}, which Grafana does not have: {}", install_plugin(kind))
}

/// The instructions for a missing panel plugin.
pub(crate) fn install_plugin(kind: &str) -> String {
    format!(
        "install it (grafana cli plugins install {}) and restart Grafana, or choose another visualization",
        shell_word(kind)
    )
}

/// The hint if Grafana cannot query InfluxDB. `reaches_loopback` is set where containers reach servers on the loopback of
/// the engine's host: the engines of macOS forward the host's name to it.
pub(crate) fn way_to_influxdb(source: &DesiredDataSource, fault: QueryFault, reaches_loopback: bool) -> String {
    let give = if source.is_url_chosen {
        "correct --data-source-url, which is InfluxDB's address as Grafana's server sees it (--data-source-url '' derives \
         it again)"
    } else {
        "set --data-source-url to InfluxDB's address as Grafana's server sees it"
    };
    match fault {
        QueryFault::Login if source.user.is_empty() => format!(
            "set --influxdb-user and --influxdb-password-file to an account of the InfluxDB at {}, or {give}",
            source.url
        ),
        QueryFault::Login => format!("check that {} accepts --influxdb-user and its password, or {give}", source.url),
        QueryFault::Rights => "use an account with the right to read that database (--influxdb-user)".into(),
        QueryFault::Authority => {
            "add the authority that signed InfluxDB's certificate to the system certificates of Grafana's server and \
             restart Grafana, or enter it in the data source in Grafana (\"With CA Cert\"), where `up` keeps it"
                .into()
        }
        QueryFault::Certificate => {
            "renew InfluxDB's certificate, or set --data-source-url to a name that it is valid for".into()
        }
        _ if !source.is_on_engines_host() => give.into(),
        QueryFault::Host => give.into(),
        QueryFault::Refused if reaches_loopback => {
            format!("check that InfluxDB runs on this machine and listens on that port of 127.0.0.1, or {give}")
        }
        QueryFault::Refused => format!(
            "a container cannot reach a server that listens on loopback only: let InfluxDB listen on another address \
             (bind-address under [http] in influxdb.conf), where every host that reaches that address can read and \
             write metrics, or {give}"
        ),
        QueryFault::Other => format!("check that no firewall blocks containers from this machine's ports, or {give}"),
    }
}

/// The sentence that names the organisation of Grafana that is used because no setting names one of several.
pub(crate) fn chosen_organisation(seen: &Observed) -> Option<String> {
    let ChosenOrganisation { name, others } = seen.grafana_state()?.chosen.as_ref()?;
    Some(format!(
        "without --grafana-org, this instance's objects belong in Grafana's organisation {name:?}; the account also \
         belongs to {}",
        quoted(others)
    ))
}

/// The sentence that no organisation of Grafana, as far as this run reads it, has an object of the instance.
pub(crate) fn none_in_grafana(stack: &Stack, seen: &Observed) -> String {
    let server = format!("the Grafana at {}", stack.url(Role::Grafana));
    let chosen = seen.grafana_state().and_then(|grafana| grafana.chosen.as_ref());
    match (&stack.organisation, chosen) {
        (Some(name), _) => format!("the organisation {name:?} of {server} has none of this instance's objects"),
        (None, Some(ChosenOrganisation { name, others })) => format!(
            "the organisation {name:?} of {server} has none of this instance's objects; the account also belongs to {}: \
             `{}` looks there",
            quoted(others),
            stack.command(&format!(
                "down --deregister{}",
                match others.as_slice() {
                    [other] => typed_option("--grafana-org", other),
                    _ => " --grafana-org NAME".into(),
                }
            ))
        ),
        (None, None) => format!("{server} has none of this instance's objects"),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// A sentence for each object that is kept although it is not needed.
pub(crate) fn kept(plan: &Plan) -> impl Iterator<Item = String> + '_ {
    plan.kept().map(|kept| format!("{}; {}", kept.why, kept.hint))
}

/// A hint for each remembered file that cannot be used.
pub(crate) fn unreadable_dashboards(stack: &Stack) -> Vec<String> {
    let unreadable = stack.unreadable_dashboards.iter();
    let mut left: String = stack.user_dashboards.iter().map(|own| typed_option("--dashboard", &own.path)).collect();
    if left.is_empty() {
        left = " --dashboard ''".into();
    }
    let forget = stack.command(&format!("up{left}"));
    unreadable
        .map(|why| format!("{why}; its dashboard in Grafana stays unchanged; `{forget}` removes it from the settings"))
        .collect()
}

/// The hint that an image failed, with the command that tries it again.
pub(crate) fn failed_image(stack: &Stack) -> Option<String> {
    let failed = stack.failed_image.as_ref()?;
    let again = stack.command(&format!("up --grafana-image {failed}"));
    Some(format!("Grafana's image {failed} failed and is not used; `{again}` tries it again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageRef;
    use crate::model::plan::{self, UpOptions};
    use crate::model::stack::Settings;
    use crate::model::upgrade::{NamedImage, Upgrade};
    use crate::samples;

    #[test]
    fn objects_in_another_organisation_of_the_same_grafana_are_named() {
        let left = |before: &[(&str, &str)], now: &[(&str, &str)]| {
            let desired = samples::remembered(now);
            let organisation = desired.get("grafana-org").map(|one| one.value.clone());
            let settings = Settings { values: desired, merged_from: Some(samples::remembered(before)), lost: None };
            left_organisation(&Stack { organisation, settings: Some(settings), ..samples::stack() })
        };
        let (server, other) = (("grafana-url", "http://g:3000"), ("grafana-url", "http://h:3000"));
        let (ours, theirs) = (("grafana-org", "O 1"), ("grafana-org", "O2"));
        let stay = "objects of x in Grafana's organisation \"O 1\" stay as they are: delete them there";
        assert_eq!(left(&[server, ours], &[server, theirs]).unwrap(), stay);
        assert_eq!(left(&[], &[theirs]), None, "it can be the same");
        assert_eq!(left(&[server, ours], &[other, theirs]), None, "another server");
        assert_eq!(left(&[server, ours], &[server, ours]), None);
    }

    #[test]
    fn a_name_without_an_instance_leads_to_the_others() {
        let absent = |change: fn(&mut Stack, &mut Observed)| {
            let (mut stack, mut seen) = (samples::stack(), samples::observed());
            for role in Role::ALL {
                *seen.server_mut(role) = samples::observed_server();
            }
            change(&mut stack, &mut seen);
            no_instance(&stack, &seen)
        };
        let alone = absent(|_, _| {}).unwrap();
        assert_eq!(alone.what, "no instance called x exists on this engine");
        assert_eq!(alone.hint, "`clipper-metrics up` creates x");
        let others = absent(|_, seen| seen.others = vec!["a".into(), "b".into()]).unwrap();
        let expected = "other instances on this engine: a, b (choose one with --name); `clipper-metrics up` creates x";
        assert_eq!(others.hint, expected);
        let volume = VolumeState::Ours { user: None, version: None, image: None };
        assert_eq!(absent(|_, seen| seen.settings.numbers = vec![1]), None);
        assert_eq!(absent(|stack, _| stack.services.influxdb = samples::external("db", 8086)), None);
        let mut seen = samples::observed();
        (seen.influxdb, seen.grafana) = (samples::observed_server(), samples::observed_server());
        seen.grafana.volume = volume;
        assert_eq!(no_instance(&samples::stack(), &seen), None);
    }

    #[test]
    fn a_volume_that_was_there_before_is_named() {
        // The volumes that exist, and the remembered settings.
        let lost = |volumes: &[Role], before: Option<&[(&str, &str)]>, change: fn(&mut Stack)| {
            let merged_from = before.map(samples::remembered);
            let mut stack =
                Stack { settings: Some(Settings { merged_from, ..Settings::default() }), ..samples::stack() };
            change(&mut stack);
            let mut seen = samples::in_sync();
            for role in Role::ALL {
                let server = seen.server_mut(role);
                server.container = ContainerState::Absent;
                if !volumes.contains(&role) {
                    server.volume = VolumeState::Absent;
                }
            }
            let plan = plan::up(&stack, &seen, UpOptions::default());
            lost_volumes(&stack, &seen, &plan)
        };
        let own: fn(&mut Stack) = |_| {};
        let external: fn(&mut Stack) = |stack| stack.services.grafana = samples::external("g", 3000);
        let some: Option<&[(&str, &str)]> = Some(&[("database", "d")]);
        let metrics = "volume x-influxdb does not exist, although volume x-grafana does: `up` creates it anew, without \
                       earlier metrics";
        assert_eq!(lost(&[Role::Grafana], some, own), [metrics]);
        assert_eq!(lost(&[Role::Grafana], None, own), [metrics], "the settings are lost, too");
        let accounts = lost(&[Role::Influxdb], some, own);
        assert!(accounts.len() == 1 && accounts[0].ends_with("without earlier users and dashboards"), "{accounts:?}");
        let alone = lost(&[], some, external);
        assert!(alone.len() == 1 && alone[0].contains("although the settings of x do"), "{alone:?}");
        let none: [String; 0] = [];
        assert_eq!(lost(&Role::ALL, some, own), none);
        assert_eq!(lost(&[], None, own), none, "a first `up`");
        assert_eq!(lost(&[], None, external), none, "a first `up` with an external Grafana");
        assert_eq!(lost(&[], some, own), none, "a first `up` that was killed after it saved the settings");
        let switched = lost(&[Role::Grafana], Some(&[("influxdb-url", "http://db:8086")]), own);
        assert_eq!(switched, none, "InfluxDB was external");
    }

    #[test]
    fn the_way_back_from_an_unproven_image_exists_only_if_its_previous_one_has_another_name() {
        let hint = |from: &str, to: &str, is_container: bool| {
            let image = |name: &str| NamedImage { name: ImageRef::parse(name).unwrap(), id: None };
            let (id, state) = ("1".into(), UpgradeState::Unproven);
            let mut seen = samples::observed();
            seen.settings.upgrade = Some(Upgrade { id, from: image(from), to: image(to), state });
            let mut stack = samples::stack();
            if !is_container {
                stack.services.grafana = samples::external("g", 3000);
            }
            unproven_image(&stack, &seen)
        };
        let (old, new, moving) = ("grafana/grafana:12.4.10", "grafana/grafana:13.2.3", "grafana/grafana:latest");
        let back = "`clipper-metrics up --grafana-image grafana/grafana:12.4.10` restores the previous Grafana with its \
                    database";
        assert_eq!(hint(old, new, true).unwrap(), back);
        let accepted = "`clipper-metrics up` accepts the new image behind grafana/grafana:latest if it works, and then \
                        deletes the copy of the previous database";
        assert_eq!(hint(moving, moving, true).unwrap(), accepted);
        assert_eq!(hint(old, new, false), None, "no command restores an external server");
    }

    #[test]
    fn a_rejected_login_names_the_account_only_if_there_is_one() {
        let hint = |user: &str| {
            let source = DesiredDataSource { user: user.into(), ..samples::data_source() };
            way_to_influxdb(&source, QueryFault::Login, false)
        };
        assert!(hint("me").contains("accepts --influxdb-user and its password"));
        assert!(hint("").starts_with("set --influxdb-user and --influxdb-password-file"), "{}", hint(""));
    }

    #[test]
    fn the_way_to_influxdb_depends_on_the_fault() {
        let source = |url: &str| DesiredDataSource { url: url.into(), ..samples::data_source() };
        let theirs = source("http://host.docker.internal:8086");
        assert!(way_to_influxdb(&theirs, QueryFault::Refused, false).contains("bind-address"));
        assert!(way_to_influxdb(&theirs, QueryFault::Refused, true).contains("runs on this machine and listens"));
        assert!(way_to_influxdb(&theirs, QueryFault::Other, false).contains("firewall"));
        let chosen = DesiredDataSource { is_url_chosen: true, ..source("http://127.0.0.1:1") };
        assert!(way_to_influxdb(&chosen, QueryFault::Refused, false).contains("--data-source-url ''"));
        for (url, fault) in [
            ("http://host.docker.internal:8086", QueryFault::Host),
            ("http://influxdb:8086", QueryFault::Refused),
            ("http://my.host.docker.internal.example:8086", QueryFault::Refused),
        ] {
            let hint = way_to_influxdb(&source(url), fault, false);
            assert!(hint.starts_with("set --data-source-url"), "{url} {fault:?}");
        }
    }
}
