//! The filter of an action: which of the mail that waits a command is noted for.

use store::*;

use crate::commands::{HOUR, command};
use crate::world::{NOW, World, node};

#[tokio::test]
async fn a_filter_notes_what_fits_and_nothing_else() {
    let Some(world) = World::start().await else {
        return;
    };
    let accept = |message: NewMessage| {
        let request = world.request(vec![message]);
        let acceptor = world.acceptor();
        async move { acceptor.accept(request).await.unwrap() }
    };
    for _ in 0..7 {
        accept(world.message()).await;
    }
    accept(NewMessage {
        tags: vec!["other".into()],
        ..world.message()
    })
    .await;
    accept(NewMessage {
        flags: MessageFlags::TEST,
        ..world.message()
    })
    .await;
    accept(NewMessage {
        due_at: NOW + HOUR,
        ..world.message()
    })
    .await;
    let stranger = NewMessage {
        account: AccountNo(world.account.no.0 + 1),
        ..world.message()
    };
    accept(stranger).await;

    let all = CommandFilter {
        account: world.account.no,
        test_only: false,
        sender_domains: None,
        stream: None,
        domain: None,
        tag: None,
        status: None,
        after: None,
        before: None,
    };
    let status = |status| CommandFilter {
        status: Some(status),
        ..all.clone()
    };
    let cancel = CommandKind::Cancel;
    let walk = async |kind, filter: &CommandFilter| {
        let mut matched = 0;
        for shard in world.store.all_shards().await.unwrap() {
            let mut place = WalkPlace {
                shard,
                cursor: Cursor::START,
            };
            loop {
                let page = world
                    .store
                    .note_matching(kind, filter, place, 3, NOW)
                    .await
                    .unwrap();
                matched += page.matched;
                let Some(last) = page.last else { break };
                place.cursor = last;
            }
        }
        // What is wanted already would not be noted again.
        let forgotten = sqlx::query("DELETE FROM queue_command");
        forgotten
            .execute(&mut world.connection().await)
            .await
            .unwrap();
        matched
    };
    assert_eq!(walk(cancel, &all).await, 10);
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                test_only: true,
                ..all.clone()
            }
        )
        .await,
        1
    );
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                tag: Some("other".into()),
                ..all.clone()
            }
        )
        .await,
        1
    );
    assert_eq!(walk(cancel, &status(WaitingStatus::Queued)).await, 9);
    assert_eq!(walk(cancel, &status(WaitingStatus::Scheduled)).await, 1);
    assert_eq!(walk(cancel, &status(WaitingStatus::Deferred)).await, 0);
    let retry = CommandKind::RetryNow;
    assert_eq!(walk(retry, &all).await, 0, "nothing was deferred");
    let scheduled = status(WaitingStatus::Scheduled);
    assert_eq!(walk(retry, &scheduled).await, 1, "it is what was asked for");
    let mut connection = world.connection().await;
    for flags in [0, 3] {
        sqlx::query(
            "UPDATE queue SET attempt = 1, flags = $1, next_at = $2
             WHERE ctid = (SELECT ctid FROM queue WHERE account = $3 AND attempt = 0 AND next_at <= $4 LIMIT 1)",
        )
        .bind(flags)
        .bind(NOW + HOUR)
        .bind(world.account.no.0)
        .bind(NOW)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    assert_eq!(walk(retry, &all).await, 1, "what is held may have arrived");
    let stream = Some(StreamNo(world.stream.no.0 + 1));
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                stream,
                ..all.clone()
            }
        )
        .await,
        0
    );
    let domain = Some(RecipientDomainNo(world.recipient_domain.0 + 1));
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                domain,
                ..all.clone()
            }
        )
        .await,
        0
    );
    let before = CommandFilter {
        before: Some(NOW),
        ..all.clone()
    };
    assert_eq!(walk(cancel, &before).await, 0);
    let after = CommandFilter {
        after: Some(NOW),
        ..all.clone()
    };
    assert_eq!(walk(cancel, &after).await, 10);
    let reschedule = CommandKind::Reschedule(NOW);
    let start = WalkPlace {
        shard: ShardNo(0),
        cursor: Cursor::START,
    };
    let refused = world
        .store
        .note_matching(reschedule, &all, start, 3, NOW)
        .await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));

    // The single command does not wait behind the many.
    let fence = world.own(node()).await;
    let row = world.queued().await.pop().unwrap();
    let single = command(&row, CommandKind::Cancel);
    world
        .store
        .note_commands(&[single], NOW + HOUR)
        .await
        .unwrap();
    let shards: Vec<ShardNo> = fence.held.iter().map(|(shard, _)| *shard).collect();
    let open = world.store.open_commands(&shards, 10, 0).await.unwrap();
    assert_eq!(open, [single]);
}
