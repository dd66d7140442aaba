//! Routing promises, against a real DNS server.

#![allow(clippy::unwrap_used)]

mod dns_server;

use std::time::{Duration, Instant};

use dns_server::{DnsServer, Fault, Zone};
use mail::domain_name::DomainName;
use mail::judge::Failure;
use mta::routing::{
    DnsTimeouts, RouteFailure, Router, RoutingConfig, RoutingConfigError, parse_route,
};

const QUICK: DnsTimeouts = DnsTimeouts {
    query: Duration::from_millis(300),
    retries: 0,
    whole: Duration::from_secs(2),
};

fn config(server: &DnsServer) -> RoutingConfig {
    RoutingConfig {
        nameservers: Some(vec![server.address]),
        timeouts: QUICK,
        ..RoutingConfig::default()
    }
}

fn router(server: &DnsServer) -> Router {
    Router::new(config(server)).unwrap()
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

async fn names(router: &Router, text: &str) -> Vec<String> {
    let route = router.route(&domain(text)).await.unwrap();
    assert!(!route.is_static);
    route
        .hosts
        .iter()
        .map(|host| format!("{} {}", host.preference, host.name))
        .collect()
}

async fn failure(router: &Router, text: &str) -> RouteFailure {
    router.route(&domain(text)).await.unwrap_err()
}

/// The addresses of the route's only host.
async fn addresses(router: &Router, text: &str) -> Result<Vec<String>, RouteFailure> {
    let route = router.route(&domain(text)).await?;
    let found = router.addresses(&route.hosts[0]).await?;
    Ok(found.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn mx_hosts_come_by_preference_and_fold_to_a_site() {
    let server = Zone::default()
        .mx("a.test", 20, "MX2.provider.test")
        .mx("a.test", 10, "mx1.provider.test")
        .mx("b.test", 1, "mx1.provider.test")
        .mx("b.test", 2, "mx2.provider.test")
        .mx("c.test", 20, "mx1.provider.test")
        .mx("c.test", 10, "mx2.provider.test")
        .serve()
        .await;
    let router = router(&server);
    assert_eq!(
        names(&router, "a.test").await,
        ["10 mx1.provider.test", "20 mx2.provider.test"]
    );
    let a = router.route(&domain("a.test")).await.unwrap();
    let b = router.route(&domain("b.test")).await.unwrap();
    let c = router.route(&domain("c.test")).await.unwrap();
    assert_eq!(a.site, b.site);
    assert_eq!(a.site.as_str(), "mx1.provider.test>mx2.provider.test");
    assert_ne!(
        a.site, c.site,
        "a shared connection would lead to the host c.test likes less"
    );
    assert_eq!(a.hosts[0].port, 25);
}

#[tokio::test]
async fn without_mx_the_domain_is_its_own_host() {
    let server = Zone::default()
        .a("v4.test", "9.9.9.9")
        .aaaa("v6.test", "2620:fe::fe")
        .serve()
        .await;
    let router = router(&server);
    assert_eq!(names(&router, "v4.test").await, ["0 v4.test"]);
    assert_eq!(names(&router, "v6.test").await, ["0 v6.test"]);
    assert_eq!(
        addresses(&router, "v6.test").await.unwrap(),
        ["[2620:fe::fe]:25"]
    );
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = Zone::default()
        .cname("alias.test", "real.test")
        .mx("real.test", 10, "mx.test")
        .a("mx.test", "9.9.9.9")
        .cname("web.test", "host.test")
        .a("host.test", "9.9.9.10")
        .mx("indirect.test", 10, "mxalias.test")
        .cname("mxalias.test", "mx.test")
        .cname("dangling.test", "nowhere.test")
        .serve()
        .await;
    let router = router(&server);
    assert_eq!(names(&router, "alias.test").await, ["10 mx.test"]);
    assert_eq!(
        addresses(&router, "web.test").await.unwrap(),
        ["9.9.9.10:25"]
    );
    assert_eq!(
        addresses(&router, "indirect.test").await.unwrap(),
        ["9.9.9.9:25"]
    );
    assert_eq!(
        failure(&router, "dangling.test").await.failure,
        Failure::NoSuchDomain
    );
}

#[tokio::test]
async fn domains_that_take_no_mail_fail_for_good() {
    let server = Zone::default()
        .mx("null.test", 0, ".")
        .a("null.test", "9.9.9.9")
        .cname("text.test", "empty.test")
        .mx("empty.empty.test", 10, "mx.test")
        .mx("mixed.test", 0, ".")
        .mx("mixed.test", 10, "mx.test")
        .serve()
        .await;
    let router = router(&server);
    assert_eq!(failure(&router, "null.test").await.failure, Failure::NullMx);
    let missing = failure(&router, "missing.test").await;
    assert_eq!(missing.failure, Failure::NoSuchDomain);
    assert_eq!(
        missing.to_string(),
        "missing.test does not exist (NXDOMAIN)"
    );
    // Exists, because there is a name below it, and has no records.
    assert_eq!(
        failure(&router, "empty.test").await.failure,
        Failure::NoMailHost
    );
    assert_eq!(
        failure(&router, "text.test").await.failure,
        Failure::NoMailHost
    );
    assert_eq!(names(&router, "mixed.test").await, ["10 mx.test"]);
}

#[tokio::test]
async fn an_unusable_mx_set_never_falls_back_to_the_address() {
    let server = Zone::default()
        .mx("a.test", 10, "missing.test")
        .a("a.test", "9.9.9.9")
        .mx("b.test", 10, "mx,b.test")
        .a("b.test", "9.9.9.9")
        .serve()
        .await;
    let router = router(&server);
    assert_eq!(names(&router, "a.test").await, ["10 missing.test"]);
    assert_eq!(
        addresses(&router, "a.test").await.unwrap_err().failure,
        Failure::NoMailHost
    );
    assert_eq!(
        failure(&router, "b.test").await.failure,
        Failure::NoMailHost
    );
}

#[tokio::test]
async fn dns_trouble_is_not_final_and_never_an_implicit_mx() {
    let server = Zone::default()
        .fault("ill.test", Fault::ServFail)
        .fault("silent.test", Fault::Silence)
        .a("ill.test", "9.9.9.9")
        .mx("host.test", 10, "ill.test")
        .serve()
        .await;
    let router = router(&server);
    let ill = failure(&router, "ill.test").await;
    assert_eq!(ill.failure, Failure::DnsTrouble, "{ill}");
    let begun = Instant::now();
    let silent = failure(&router, "silent.test").await;
    assert_eq!(silent.failure, Failure::DnsTrouble, "{silent}");
    assert!(begun.elapsed() < Duration::from_secs(3), "bounded in time");
    assert_eq!(
        addresses(&router, "host.test").await.unwrap_err().failure,
        Failure::DnsTrouble
    );
    // A zone the server does not have: REFUSED.
    assert_eq!(
        failure(&router, "example.org").await.failure,
        Failure::DnsTrouble
    );
}

#[tokio::test]
async fn a_domain_is_looked_up_once_however_many_ask() {
    let server = Zone::default()
        .mx("busy.test", 10, "mx.test")
        .fault("ill.test", Fault::ServFail)
        .serve()
        .await;
    let router = std::sync::Arc::new(router(&server));
    for name in ["busy.test", "ill.test", "missing.test"] {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let router = std::sync::Arc::clone(&router);
                tokio::spawn(async move { router.route(&domain(name)).await.is_ok() })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), name == "busy.test");
        }
        let first = server.queries_about(name);
        assert!((1..=4).contains(&first), "{name}: {first} queries");
        let _ = router.route(&domain(name)).await;
        assert_eq!(server.queries_about(name), first, "{name} is remembered");
    }
}

#[tokio::test]
async fn addresses_of_our_own_network_are_refused() {
    let server = Zone::default()
        .a("loop.test", "127.0.0.1")
        .a("private.test", "10.1.2.3")
        .aaaa("mapped.test", "::ffff:8.8.8.8")
        .a("meta.test", "169.254.169.254")
        .a("mixed.test", "192.168.0.1")
        .a("mixed.test", "9.9.9.9")
        .mx("localhost.test", 10, "localhost")
        .serve()
        .await;
    let strict = router(&server);
    for name in [
        "loop.test",
        "private.test",
        "mapped.test",
        "meta.test",
        "localhost.test",
    ] {
        let error = addresses(&strict, name).await.unwrap_err();
        assert_eq!(error.failure, Failure::ForbiddenAddress, "{name}");
    }
    assert_eq!(
        addresses(&strict, "mixed.test").await.unwrap(),
        ["9.9.9.9:25"]
    );
    let open = Router::new(RoutingConfig {
        allow_private: true,
        smtp_port: 2525,
        ..config(&server)
    })
    .unwrap();
    assert_eq!(
        addresses(&open, "loop.test").await.unwrap(),
        ["127.0.0.1:2525"]
    );
}

#[tokio::test]
async fn families_are_used_as_the_node_can() {
    let server = Zone::default()
        .a("both.test", "9.9.9.9")
        .aaaa("both.test", "2620:fe::fe")
        .aaaa("six.test", "2620:fe::fe")
        .mx("mx-six.test", 10, "six.test")
        .serve()
        .await;
    let dual = router(&server);
    assert_eq!(
        addresses(&dual, "both.test").await.unwrap(),
        ["9.9.9.9:25", "[2620:fe::fe]:25"]
    );
    let only_v4 = Router::new(RoutingConfig {
        ipv6: false,
        ..config(&server)
    })
    .unwrap();
    assert_eq!(
        addresses(&only_v4, "both.test").await.unwrap(),
        ["9.9.9.9:25"]
    );
    // Out of reach from here is not without a mail host: nothing may bounce.
    for name in ["six.test", "mx-six.test"] {
        let error = addresses(&only_v4, name).await.unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{error}");
    }
}

#[tokio::test]
async fn static_routes_come_first_and_may_be_private() {
    let server = Zone::default()
        .mx("a.test", 10, "mx.test")
        .a("relay.test", "10.0.0.9")
        .serve()
        .await;
    let routes = [
        "a.test=127.0.0.1:2525",
        "b.test=relay.test:26",
        "*=[::1]:1025",
    ];
    let router = Router::new(RoutingConfig {
        routes: routes
            .iter()
            .map(|text| parse_route(text).unwrap())
            .collect(),
        ipv6: false,
        ..config(&server)
    })
    .unwrap();
    let check = async |name: &str, site: &str, address: &str| {
        let route = router.route(&domain(name)).await.unwrap();
        assert!(route.is_static);
        assert_eq!(route.site.as_str(), site);
        let found = router.addresses(route.order(0)[0]).await.unwrap();
        assert_eq!(found, [address.parse().unwrap()]);
    };
    check("a.test", "route:127.0.0.1:2525", "127.0.0.1:2525").await;
    assert_eq!(server.queries(), 0);
    check("b.test", "route:relay.test:26", "10.0.0.9:26").await;
    check("below.a.test", "route:[::1]:1025", "[::1]:1025").await;
}

#[tokio::test]
async fn a_wrong_static_route_defers() {
    let server = Zone::default().serve().await;
    let router = Router::new(RoutingConfig {
        routes: vec![parse_route("*=missing.test:25").unwrap()],
        ..config(&server)
    })
    .unwrap();
    let error = addresses(&router, "a.test").await.unwrap_err();
    assert_eq!(error.failure, Failure::DnsTrouble);
    assert!(
        error.detail.starts_with("static route to missing.test"),
        "{error}"
    );
}

#[tokio::test]
async fn offline_nothing_is_asked_and_nothing_leaves() {
    let server = Zone::default().mx("a.test", 10, "mx.test").serve().await;
    let router = Router::new(RoutingConfig {
        routes: vec![parse_route("sink.test=localhost:1025").unwrap()],
        offline: true,
        ..config(&server)
    })
    .unwrap();
    let error = failure(&router, "a.test").await;
    assert_eq!(error.failure, Failure::DnsTrouble);
    assert!(
        error.detail.contains("dev never sends to the internet"),
        "{error}"
    );
    let found = addresses(&router, "sink.test").await.unwrap();
    assert!(found.contains(&"127.0.0.1:1025".to_owned()), "{found:?}");
    assert_eq!(server.queries(), 0);
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let refuse = |config: RoutingConfig| Router::new(config).unwrap_err();
    let route = |text| parse_route(text).unwrap();
    let routes = vec![route("a.test=h:25"), route("A.test=h:26")];
    assert!(matches!(
        refuse(RoutingConfig {
            routes,
            ..RoutingConfig::default()
        }),
        RoutingConfigError::DuplicateRoute(_)
    ));
    assert!(matches!(
        refuse(RoutingConfig {
            nameservers: Some(vec![]),
            ..RoutingConfig::default()
        }),
        RoutingConfigError::NoNameServers
    ));
    assert!(matches!(
        refuse(RoutingConfig {
            mx_hosts_max: 0,
            ..RoutingConfig::default()
        }),
        RoutingConfigError::Zero("mx_hosts_max")
    ));
}
