//! Settings that are remembered, lost or unreadable.

use super::*;

/// The settings that a stack cannot know, by their options.
fn unknown(stack: &Stack) -> Vec<&'static str> {
    let lost = stack.settings.as_ref().unwrap().lost.as_ref();
    lost.iter().flat_map(|lost| &lost.unknown).map(|one| one.option).collect()
}

#[test]
fn values_for_one_run_are_never_remembered() {
    let mut it = inputs();
    it.options = [
        (Setting::Pull, "always"),
        (Setting::Timeout, "7s"),
        (Setting::InfluxdbUrl, "http://db:8086"),
        (Setting::GrafanaUrl, "http://g:3000"),
        (Setting::InfluxdbUser, "me"),
        (Setting::GrafanaUser, "me"),
    ]
    .map(|(setting, value)| (setting, value.to_string()))
    .into();
    it.secrets.grafana_password = Some(Secret::new("secret"));
    let values = merged(&it, &fresh()).unwrap().settings.unwrap().values;
    assert_eq!(values.keys().collect::<Vec<_>>(), ["grafana-url", "influxdb-url"]);
}

#[test]
fn the_url_of_an_external_server_is_remembered_and_removed() {
    let mut it = with(Setting::InfluxdbUrl, "http://db.example:8086");
    it.options.insert(Setting::InfluxdbPort, "8099".into());
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!(bare.url(Role::Influxdb).to_string(), "http://db.example:8086");
    // And its user can be given without the address.
    assert_eq!(merged(&with(Setting::InfluxdbUser, "me"), &memory).unwrap().data_source.user, "me");
    assert!(merged(&with(Setting::InfluxdbUser, "me"), &fresh()).is_err());
    let back = merged(&with(Setting::InfluxdbUrl, ""), &memory).unwrap();
    assert_eq!(back.url(Role::Influxdb).to_string(), "http://127.0.0.1:8099");
}

#[test]
fn the_remembered_address_of_the_data_source_belongs_to_its_servers() {
    let mut it = with(Setting::InfluxdbUrl, "http://old.example:8086");
    it.options.insert(Setting::DataSourceUrl, "http://inner.example:8086".into());
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let url = |options: &[(Setting, &str)]| {
        let mut it = inputs();
        it.options = options.iter().map(|(setting, value)| (*setting, (*value).to_string())).collect();
        let stack = merged(&it, &memory).unwrap();
        let is_remembered = stack.settings.unwrap().values.contains_key("data-source-url");
        (stack.data_source.url, is_remembered)
    };
    let inner = "http://inner.example:8086".to_string();
    assert_eq!(url(&[]), (inner.clone(), true));
    assert_eq!(url(&[(Setting::InfluxdbUrl, "http://old.example:8086")]), (inner.clone(), true));
    assert_eq!(url(&[(Setting::InfluxdbUrl, "http://new.example:8086")]), ("http://new.example:8086".into(), false));
    assert!(!url(&[(Setting::InfluxdbUrl, "")]).1);
    let kept = [(Setting::InfluxdbUrl, "http://new.example:8086"), (Setting::DataSourceUrl, inner.as_str())];
    assert_eq!(url(&kept), (inner.clone(), true));
    assert!(!url(&[(Setting::GrafanaUrl, "http://other.example:3000")]).1, "another Grafana may not reach it");
    // The address of an external InfluxDB does not depend on a container's port.
    assert_eq!(url(&[(Setting::InfluxdbPort, "9086")]), (inner, true));
}

#[test]
fn the_remembered_address_of_the_data_source_belongs_to_the_container_at_its_port() {
    let memory = memory_of(&merged(&with(Setting::DataSourceUrl, "http://inner.example:8086"), &fresh()).unwrap());
    let is_kept = |setting, value: &str| {
        merged(&with(setting, value), &memory).unwrap().settings.unwrap().values.contains_key("data-source-url")
    };
    assert!(is_kept(Setting::InfluxdbPort, "8086") && is_kept(Setting::GrafanaPort, "3001"));
    assert!(is_kept(Setting::InfluxdbPort, "08086") && is_kept(Setting::InfluxdbIp, "localhost"), "the same address");
    assert!(!is_kept(Setting::InfluxdbPort, "9086") && !is_kept(Setting::InfluxdbIp, "127.0.0.2"));
    assert!(!is_kept(Setting::GrafanaUrl, "http://g.example:3000"));
}

#[test]
fn if_settings_are_lost_containers_stand_in_for_their_own_role() {
    let mut it = with(Setting::Registry, "mirror:5000");
    it.options.insert(Setting::GrafanaPort, "3003".into());
    it.options.insert(Setting::Database, "d".into());
    let stack = merged(&it, &fresh()).unwrap();
    let made = Role::ALL.map(|role| (role, Some(spec(&stack, role).config.clone())));
    let memory = Memory { containers: made.to_vec(), has_data: true, ..fresh() };
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!(bare.url(Role::Grafana).port, 3003);
    assert_eq!(spec(&bare, Role::Influxdb).config, spec(&stack, Role::Influxdb).config);
    assert_eq!(unknown(&bare), ["database"]);
    let told = merged(&with(Setting::Database, "d"), &memory).unwrap();
    assert_eq!((unknown(&told), told.settings.unwrap().lost.unwrap().cause), (vec![], Loss::Gone));
}

#[test]
fn if_settings_are_lost_a_role_without_a_container_may_be_an_external_server() {
    let stack = merged(&inputs(), &fresh()).unwrap();
    let grafana = (Role::Grafana, Some(spec(&stack, Role::Grafana).config.clone()));
    let memory = Memory { containers: vec![grafana], has_data: true, ..fresh() };
    assert_eq!(unknown(&merged(&inputs(), &memory).unwrap()), ["database", "influxdb-url"]);
    // The database alone does not say who serves it.
    let mut it = with(Setting::Database, "d");
    assert_eq!(unknown(&merged(&it, &memory).unwrap()), ["influxdb-url"]);
    for url in ["http://db:8086", ""] {
        it.options.insert(Setting::InfluxdbUrl, url.into());
        assert!(unknown(&merged(&it, &memory).unwrap()).is_empty(), "{url:?}");
    }
    let after_down = Memory { has_data: true, ..fresh() };
    let stack = merged(&inputs(), &after_down).unwrap();
    assert_eq!(unknown(&stack), ["database", "influxdb-url", "grafana-url"]);
    let blocker = crate::model::plan::unknown_settings(&stack).unwrap();
    let again = "`clipper-metrics up --database NAME --influxdb-url URL --grafana-url URL`";
    assert!(blocker.hint.contains(again), "{}", blocker.hint);
}

#[test]
fn a_lost_flag_is_supplied_as_the_parser_takes_it() {
    let memory = remembering(remembered(&[("alerts", "perhaps")]));
    let blocker = crate::model::plan::unknown_settings(&merged(&inputs(), &memory).unwrap()).unwrap();
    assert!(blocker.hint.contains("up --alerts=false`") && !blocker.hint.contains('|'), "{}", blocker.hint);
}

#[test]
fn one_unreadable_value_is_named_and_the_others_stay() {
    let good = [("database", "d"), ("retention", "7d"), ("registry", "mirror:5000"), ("grafana-folder", "F")];
    for (setting, bad) in BAD {
        let option = setting.key().option;
        let mut values = remembered(&good);
        values.extend(remembered(&[(option, bad)]));
        assert!(!is_whole(&values), "{option}");
        let memory = remembering(values);
        let stack = merged(&inputs(), &memory).unwrap();
        assert_eq!(unknown(&stack), [option]);
        let Settings { values: kept, merged_from, .. } = stack.settings.as_ref().unwrap();
        assert_eq!(*merged_from, memory.stored.as_ref().unwrap().values, "as they are stored");
        for (name, value) in good.into_iter().filter(|(name, _)| *name != option) {
            assert_eq!(kept[name].value, value, "{option} is unreadable");
        }
        assert!(!kept.contains_key(option));
        let blocker = crate::model::plan::unknown_settings(&stack).unwrap();
        assert!(blocker.why.contains(&format!("--{option} is {bad:?}")), "{}", blocker.why);
        let removed = if setting == Setting::Alerts { "=false" } else { " ''" };
        assert!(blocker.hint.contains(&format!("up --{option}{removed}`")), "{}", blocker.hint);
        // Given again or taken back, it is known.
        assert!(unknown(&merged(&with(setting, ""), &memory).unwrap()).is_empty(), "{option}");
    }
    assert!(is_whole(&remembered(&[("grafana-ip", "a-name-that-does-not-resolve-today"), ("of-a-newer", "")])));
    // What is remembered in another form counts as empty, and no setting is empty.
    assert!(!is_whole(&remembered(&[("grafana-folder", "")])));
}

#[test]
fn an_unreadable_value_of_an_unused_container_is_no_obstacle_and_a_container_stands_in_for_its_own() {
    let values = remembered(&[("influxdb-url", "http://db:8086"), ("influxdb-port", "abc"), ("retention", "7d")]);
    let external = merged(&inputs(), &remembering(values.clone())).unwrap();
    assert!(external.container(Role::Influxdb).is_none() && external.retention.is_some());
    assert_eq!(external.settings.as_ref().unwrap().lost, None);
    assert!(!external.settings.unwrap().values.contains_key("influxdb-port"), "it is not stored again");
    let back = merged(&with(Setting::InfluxdbUrl, ""), &remembering(values.clone())).unwrap();
    assert_eq!(unknown(&back), ["influxdb-port"]);
    let made = merged(&with(Setting::InfluxdbPort, "8099"), &fresh()).unwrap();
    let made = spec(&made, Role::Influxdb).config.clone();
    let memory = Memory { containers: vec![(Role::Influxdb, Some(made))], ..remembering(values) };
    let back = merged(&with(Setting::InfluxdbUrl, ""), &memory).unwrap();
    assert_eq!((back.url(Role::Influxdb).port, back.settings.unwrap().lost), (8099, None));
}

#[test]
fn a_label_that_is_no_json_is_unreadable_as_a_whole() {
    let stored = StoredSettings { numbers: vec![1], ..StoredSettings::default() };
    let memory = Memory { stored: Some(stored), ..Memory::default() };
    let stack = merged(&inputs(), &memory).unwrap();
    assert_eq!(stack.settings.unwrap().lost.unwrap().cause, Loss::Unreadable);
    // A clash with a supplied value is an error, and does not discard the remembered value.
    let open = memory_of(&merged(&with(Setting::GrafanaIp, "0.0.0.0"), &fresh()).unwrap());
    let mut it = inputs();
    it.secrets.grafana_password = Some(Secret::new("admin"));
    assert!(merged(&it, &open).is_err());
}

#[test]
fn a_host_name_that_does_not_resolve_costs_an_unused_container_no_setting() {
    let mut it = with(Setting::InfluxdbUrl, "http://db:8086");
    for (setting, value) in
        [(Setting::InfluxdbIp, "nowhere"), (Setting::InfluxdbPort, "8099"), (Setting::InfluxdbImage, "own:1")]
    {
        it.options.insert(setting, value.into());
    }
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let again = merged(&inputs(), &memory).unwrap().settings.unwrap().values;
    for (name, value) in [("influxdb-ip", "nowhere"), ("influxdb-port", "8099"), ("influxdb-image", "own:1")] {
        assert_eq!(again[name].value, value);
    }
}

#[test]
fn the_containers_user_is_kept_while_another_grafana_is_used() {
    let first = memory_of(&merged(&with(Setting::GrafanaUser, "alice"), &fresh()).unwrap());
    let away = merged(&with(Setting::GrafanaUrl, "http://g:3000"), &first).unwrap();
    assert_eq!(
        (away.login.user.as_str(), away.login.is_untried),
        ("admin", false),
        "the container's account is not for it"
    );
    let away = memory_of(&away);
    let back = merged(&with(Setting::GrafanaUrl, ""), &away).unwrap();
    assert_eq!((back.login.user.as_str(), back.login.is_untried), ("alice", false));
}

#[test]
fn only_a_changed_user_counts_as_supplied() {
    let first = merged(&with(Setting::GrafanaUser, "me"), &fresh()).unwrap();
    assert!(first.login.is_untried);
    let memory = memory_of(&first);
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!((bare.login.user.as_str(), bare.login.is_untried), ("me", false));
    assert!(merged(&with(Setting::GrafanaUser, ""), &memory).unwrap().login.is_untried, "back to admin");
}

#[test]
fn own_dashboards_are_remembered_and_a_file_that_is_gone_stops_only_the_run_that_names_it() {
    let stack = merged(&with(Setting::Dashboard, "/d/a1:/d/b2"), &fresh()).unwrap();
    assert_eq!(stack.user_dashboards.iter().map(|own| own.path.as_str()).collect::<Vec<_>>(), ["/d/a1", "/d/b2"]);
    let again = merged(&inputs(), &memory_of(&stack)).unwrap();
    assert_eq!(again.user_dashboards, stack.user_dashboards);
    let none = merged(&with(Setting::Dashboard, ""), &memory_of(&stack)).unwrap();
    assert!(none.user_dashboards.is_empty());
    assert!(!none.settings.unwrap().values.contains_key("dashboard"));
    assert!(merged(&with(Setting::Dashboard, "/d/gone"), &fresh()).is_err());
    let mut memory = memory_of(&stack);
    let values = memory.stored.as_mut().unwrap().values.as_mut().unwrap();
    values.get_mut("dashboard").unwrap().value = "/d/gone:/d/b2".into();
    let stack = merged(&inputs(), &memory).unwrap();
    assert_eq!((stack.user_dashboards.len(), stack.unreadable_dashboards.len()), (1, 1));
}

#[test]
fn remembered_dashboards_that_clash_by_now_stop_nothing() {
    // Two files have one uid by now, another has one title, and one has the bundled dashboard's uid.
    for (paths, clash) in
        [("/d/a1:/d/a2", "/d/a1 and /d/a2"), ("/d/b1:/e/b1", "/d/b1 and /e/b1"), ("/d/a1:/d/x1", "/d/x1")]
    {
        let memory = remembering(remembered(&[("dashboard", paths)]));
        let it = with(Setting::Name, "x");
        let stack = merged(&it, &memory).unwrap();
        assert_eq!((stack.user_dashboards.len(), stack.unreadable_dashboards.len()), (1, 1), "{paths}");
        assert!(stack.unreadable_dashboards[0].contains(clash), "{:?}", stack.unreadable_dashboards);
        assert_eq!(stack.settings.unwrap().values["dashboard"].value, paths, "they stay remembered");
        let mut given = it.clone();
        given.options.insert(Setting::Dashboard, paths.into());
        assert!(merged(&given, &memory).is_err(), "{paths}");
    }
}

#[test]
fn images_named_only_by_the_memory_are_listed_apart_from_those_of_this_run() {
    let images = |inputs: &Inputs, remembered: &[(&str, &str)]| {
        let note = |value: &str| Remembered { value: value.into(), from_file: false };
        let values = remembered.iter().map(|(name, value)| ((*name).to_string(), note(value))).collect();
        let stored = StoredSettings { values: Some(values), ..StoredSettings::default() };
        let memory = Memory { stored: Some(stored), ..Memory::default() };
        let stack = merged(inputs, &memory).unwrap();
        let images = remembered_images(inputs, &engine(EngineLocation::Here), &memory, &stack).unwrap();
        images.into_iter().map(|(role, image)| format!("{role} {image}")).collect::<Vec<_>>()
    };
    assert_eq!(images(&inputs(), &[("database", "d")]), Vec::<String>::new());
    assert_eq!(images(&inputs(), &[("grafana-image", "evil/grafana:1")]), ["grafana evil/grafana:1"]);
    let registry = [("registry", "evil.example")];
    assert_eq!(images(&inputs(), &registry).len(), 2, "a registry decides where both come from");
    assert_eq!(images(&with(Setting::Registry, "evil.example"), &registry), Vec::<String>::new());
    assert_eq!(images(&with(Setting::GrafanaImage, "mine:1"), &registry).len(), 1);
    let default = Setting::GrafanaImage.key().default;
    assert_eq!(images(&inputs(), &[("grafana-image", default)]), Vec::<String>::new());
}

#[test]
fn a_remembered_host_name_without_an_address_stops_nothing_while_the_container_exists() {
    let stack = merged(&with(Setting::InfluxdbIp, "localhost"), &fresh()).unwrap();
    let mut memory = memory_of(&stack);
    memory.stored.as_mut().unwrap().values.as_mut().unwrap().get_mut("influxdb-ip").unwrap().value =
        "metrics.lan".into();
    let stored = memory.stored.as_ref().unwrap();
    memory.addresses = remembered_addresses(&inputs(), stored);
    assert!(needs_containers(memory.stored.as_ref().unwrap(), &memory.addresses));
    assert!(merged(&inputs(), &memory).is_err(), "without a container, no address is known");
    let mut made = stack.container(Role::Influxdb).unwrap().config.clone();
    made.publish.set_ip([192, 0, 2, 1].into());
    memory.containers = vec![(Role::Influxdb, Some(made))];
    let again = merged(&inputs(), &memory).unwrap();
    assert_eq!(again.container(Role::Influxdb).unwrap().config.publish.ip(), IpAddr::from([192, 0, 2, 1]));
    assert_eq!(again.settings.unwrap().values["influxdb-ip"].value, "metrics.lan", "it stays remembered");
    assert!(merged(&with(Setting::InfluxdbIp, "metrics.lan"), &memory).is_err(), "this run names it");
}

#[test]
fn a_container_keeps_its_address_while_the_remembered_host_name_has_it() {
    let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
    let made = |ip: IpAddr| {
        let mut made = merged(&inputs(), &fresh()).unwrap().container(Role::Influxdb).unwrap().config.clone();
        made.publish.set_ip(ip);
        vec![(Role::Influxdb, Some(made))]
    };
    for (known, current, expected) in [(vec![b, a], a, a), (vec![b, a], c, b), (vec![b], a, b), (vec![], a, a)] {
        let mut memory = remembering(remembered(&[("influxdb-ip", "metrics.lan")]));
        memory.addresses = [(Setting::InfluxdbIp, known.clone())].into();
        let is_read = needs_containers(memory.stored.as_ref().unwrap(), &memory.addresses);
        assert_eq!(is_read, known.len() != 1, "{known:?}");
        memory.containers = if is_read { made(current) } else { Vec::new() };
        let stack = merged(&inputs(), &memory).unwrap();
        assert_eq!(spec(&stack, Role::Influxdb).config.publish.ip(), expected, "{known:?}");
    }
}

#[test]
fn a_remembered_host_name_is_resolved_once() {
    let mut memory = remembering(remembered(&[("influxdb-ip", "metrics.lan")]));
    let first = Inputs { resolve: |_| vec![IpAddr::from([192, 0, 2, 7])], ..inputs() };
    memory.addresses = remembered_addresses(&first, memory.stored.as_ref().unwrap());
    let later = Inputs { resolve: |host| unreachable!("{host} is resolved again"), ..inputs() };
    let stack = merged(&later, &memory).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).config.publish.ip(), IpAddr::from([192, 0, 2, 7]));
    // An external server has no address to publish at.
    let external = with(Setting::InfluxdbUrl, "http://db:8086");
    assert!(remembered_addresses(&external, memory.stored.as_ref().unwrap()).is_empty());
}
