//! Proof of a domain: nothing is sent from one before its records are found, and a record proves a
//! domain only for the account it was made for.

use serde_json::{Value, json};

use crate::dns::{Dns, Trouble};
use crate::domains::{
    PATH, TARGET, ask_verify, create, from, publish, records, start, status, verify,
};

#[tokio::test]
async fn an_account_has_few_domains_looked_at_and_one_key_made_at_once() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let key = &platform.live_key;
    let names = ["a.slow.test", "b.slow.test", "c.slow.test"];
    let creating = names.map(|name| {
        let (platform, body) = (&platform, json!({"name": name}));
        async move { platform.post(key, PATH, &body).await }
    });
    let created = futures_util::future::join_all(creating).await;
    let refused = created.iter().filter(|answer| answer.status == 429);
    assert!((1..=2).contains(&refused.clone().count()), "{created:?}");
    refused.for_each(|answer| {
        answer.refused(429, "too_many_at_once");
    });
    let made = created.iter().find(|answer| answer.status == 201).unwrap();

    let verifying = (0..5).map(|_| ask_verify(&platform, key, &made.json));
    let looked = futures_util::future::join_all(verifying).await;
    let refused = looked.iter().filter(|answer| answer.status == 429);
    assert!((1..=3).contains(&refused.clone().count()), "{looked:?}");
    assert!(
        refused
            .clone()
            .all(|answer| answer.headers.contains_key("retry-after"))
    );
    let foreign = create(&platform, &stranger, "well.test").await;
    let (own, other) = tokio::join!(
        ask_verify(&platform, key, &made.json),
        ask_verify(&platform, &stranger, &foreign)
    );
    assert_eq!((own.status.as_u16(), other.status.as_u16()), (200, 200));
}

#[tokio::test]
async fn a_domain_is_sent_from_once_its_records_are_found() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let key = &platform.live_key;
    let made = platform
        .post(key, PATH, &json!({"name": "Mail.Shop.test"}))
        .await;
    assert_eq!(made.status, 201, "{}", made.json);
    let domain = made.json;
    let own = format!("{PATH}/{}", domain["id"].as_str().unwrap());
    assert_eq!(
        made.headers["location"],
        format!("http://127.0.0.1:8080{own}")
    );
    assert_eq!(
        (&domain["name"], &domain["status"]),
        (&json!("mail.shop.test"), &json!("pending"))
    );
    let purposes = ["dkim", "return_path", "spf", "dmarc"];
    for purpose in purposes {
        assert_eq!(status(&domain, purpose), "pending", "{purpose}");
    }
    let dkim = records(&domain, "dkim")[0].clone();
    assert_eq!(
        (&dkim["type"], &dkim["required"]),
        (&json!("TXT"), &json!(true))
    );
    let refused = platform
        .post(key, "/v1/emails", &from("mail.shop.test"))
        .await;
    let detail = refused.refused(403, "sender_not_verified").json["detail"].to_string();
    assert!(detail.contains(&format!("{own}/verify")), "{detail}");

    // Nothing is there.
    let looked = verify(&platform, key, &domain).await;
    assert_eq!(looked["status"], "pending");
    for purpose in purposes {
        assert_eq!(status(&looked, purpose), "missing", "{purpose}");
    }
    // Another key is there; what it is, is shown.
    dns.txt(dkim["name"].as_str().unwrap(), "v=DKIM1; k=rsa; p=AAAA");
    let looked = verify(&platform, key, &domain).await;
    assert_eq!(
        (&looked["status"], status(&looked, "dkim")),
        (&json!("pending"), "mismatch")
    );
    assert_eq!(
        records(&looked, "dkim")[0]["found"],
        "v=DKIM1; k=rsa; p=AAAA"
    );
    // The right one, and a policy above the domain; the alias is still missing.
    dns.withdraw(dkim["name"].as_str().unwrap());
    publish(&dns, &dkim);
    dns.txt("_dmarc.shop.test", "v=DMARC1; p=reject");
    let looked = verify(&platform, key, &domain).await;
    assert_eq!(looked["status"], "verified", "{looked:#}");
    assert_eq!(status(&looked, "return_path"), "missing");
    assert_eq!(records(&looked, "dmarc")[0]["found"], "v=DMARC1; p=reject");
    assert!(looked["verified_at"].is_string());
    platform.accepted(key, &from("mail.shop.test")).await;
    // Not for names below or above it.
    for other in ["shop.test", "a.mail.shop.test"] {
        let refused = platform.post(key, "/v1/emails", &from(other)).await;
        refused.refused(403, "sender_not_verified");
    }

    publish(&dns, records(&domain, "return_path")[0]);
    dns.txt(TARGET, "v=spf1 ip4:192.0.2.1 -all");
    let looked = verify(&platform, key, &domain).await;
    for purpose in purposes {
        assert_eq!(status(&looked, purpose), "found", "{looked:#}");
    }
    let shown = platform.get(key, &own).await;
    assert_eq!(shown.json, looked);
    let listed = platform.get(key, &format!("{PATH}?limit=100")).await.json;
    let ids: Vec<&Value> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["id"])
        .collect();
    assert!(ids.contains(&&domain["id"]), "{listed:#}");

    let name: mail::domain_name::DomainName = "mail.shop.test".parse().unwrap();
    let account = platform.account.no;
    let sender = platform
        .state
        .store
        .sender_domain(account, &name)
        .await
        .unwrap();
    let path = sender.unwrap().return_path.unwrap();
    assert_eq!(path.domain.as_str(), "pr-bounce.mail.shop.test");
    assert!(path.from > platform.state.clock.now());
}

#[tokio::test]
async fn a_dns_that_cannot_tell_changes_nothing() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let key = &platform.live_key;
    let domain = create(&platform, key, "shop.test").await;
    let dkim = records(&domain, "dkim")[0].clone();
    let name = dkim["name"].as_str().unwrap();
    dns.trouble(name, Some(Trouble::ServFail));
    let looked = verify(&platform, key, &domain).await;
    assert_eq!(
        (&looked["status"], status(&looked, "dkim")),
        (&json!("pending"), "unknown")
    );
    dns.trouble(name, None);
    publish(&dns, &dkim);
    assert_eq!(verify(&platform, key, &domain).await["status"], "verified");
    dns.trouble(name, Some(Trouble::ServFail));
    let looked = verify(&platform, key, &domain).await;
    assert_eq!(
        (&looked["status"], status(&looked, "dkim")),
        (&json!("verified"), "unknown")
    );
    // Asking does no harm either when the record is gone: only the daily look counts.
    dns.trouble(name, None);
    dns.withdraw(name);
    for _ in 0..5 {
        let looked = verify(&platform, key, &domain).await;
        assert_eq!(
            (&looked["status"], status(&looked, "dkim")),
            (&json!("verified"), "missing")
        );
    }
    platform.accepted(key, &from("shop.test")).await;
}

#[tokio::test]
async fn one_account_proves_a_name_and_only_by_its_own_record() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let (mine, theirs) = (
        &platform.live_key,
        &platform.other_account("other.test").await,
    );
    let ours = create(&platform, mine, "shop.test").await;
    let squat = create(&platform, theirs, "shop.test").await;
    let name = |domain: &Value| records(domain, "dkim")[0]["name"].clone();
    assert_ne!(name(&ours), name(&squat));

    publish(&dns, records(&ours, "dkim")[0]);
    assert_eq!(verify(&platform, theirs, &squat).await["status"], "pending");
    assert_eq!(verify(&platform, mine, &ours).await["status"], "verified");
    assert_eq!(verify(&platform, theirs, &squat).await["status"], "pending");
    let refused = platform
        .post(theirs, "/v1/emails", &from("shop.test"))
        .await;
    refused.refused(403, "sender_not_verified");

    // Even both records make one owner.
    publish(&dns, records(&squat, "dkim")[0]);
    ask_verify(&platform, theirs, &squat)
        .await
        .refused(409, "domain_taken");
    let id = ours["id"].as_str().unwrap();
    let gone = platform.delete(mine, &format!("{PATH}/{id}")).await;
    assert_eq!(gone.status, 204);
    assert_eq!(
        verify(&platform, theirs, &squat).await["status"],
        "verified"
    );
}

#[tokio::test]
async fn a_new_key_signs_once_its_record_is_found() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let key = &platform.live_key;
    let domain = create(&platform, key, "shop.test").await;
    publish(&dns, records(&domain, "dkim")[0]);
    verify(&platform, key, &domain).await;
    let rotate = format!("{PATH}/{}/dkim/rotate", domain["id"].as_str().unwrap());
    let rotated = platform.post(key, &rotate, &json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.json);
    let keys = records(&rotated.json, "dkim");
    assert_eq!(keys.len(), 2);
    let (new, old) = (keys[0].clone(), keys[1].clone());
    assert_eq!(old["value"], records(&domain, "dkim")[0]["value"]);
    assert_ne!((&new["value"], &new["name"]), (&old["value"], &old["name"]));
    let again = platform.post(key, &rotate, &json!({})).await;
    again.refused(409, "rotation_under_way");

    let signing = || async {
        let (store, account) = (&platform.state.store, platform.account.no);
        let name = "shop.test".parse().unwrap();
        let no = store
            .sender_domain(account, &name)
            .await
            .unwrap()
            .unwrap()
            .no;
        let signers = store
            .dkim_signers(no, &platform.state.sealer)
            .await
            .unwrap();
        assert_eq!(signers.len(), 1);
        let line = signers[0]
            .sign(b"From: a@shop.test\r\n", &[0; 32], 1, None)
            .unwrap();
        line.replace(['\r', '\n', ' '], "")
    };
    let selector = |record: &Value| {
        let name = record["name"].as_str().unwrap();
        format!("s={};", name.split('.').next().unwrap())
    };
    verify(&platform, key, &domain).await;
    assert!(signing().await.contains(&selector(&old)));
    publish(&dns, &new);
    let looked = verify(&platform, key, &domain).await;
    assert!(signing().await.contains(&selector(&new)));
    let keys = records(&looked, "dkim");
    assert_eq!(
        (&keys[0]["required"], &keys[1]["required"]),
        (&json!(true), &json!(false))
    );
    // A third key takes the place of the first: two selectors at most.
    let rotated = platform.post(key, &rotate, &json!({})).await.json;
    let keys = records(&rotated, "dkim");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[1]["name"], new["name"]);
}
