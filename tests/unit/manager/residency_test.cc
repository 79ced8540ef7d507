#include "unit/manager/residency_house.h"

namespace inferneo {
namespace {

using Kind = Residency::Decision::Kind;

TEST(Residency, AllWhoWaitShareALoad) {
  House house;
  const auto a = house.add(50);
  EXPECT_FALSE(house.residency.acquire(a, 0, at(0)));
  EXPECT_FALSE(house.residency.acquire(a, 0, at(0)));
  house.settle(0);
  EXPECT_EQ(house.residency.leases(a), 2);
  EXPECT_TRUE(house.residency.acquire(a, 0, at(1)));
  EXPECT_EQ(house.residency.leases(a), 3);
}

TEST(Residency, RoomIsMadeByTheOneThatIdledLongest) {
  House house;
  const auto a = house.add(40);
  const auto b = house.add(40);
  const auto c = house.add(40);
  house.use(a, 0);
  house.use(b, 5);
  house.use(c, 10);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{a, UnloadReason::room}}));
  EXPECT_EQ(house.residency.state(b), ModelState::ready);
}

TEST(Residency, OneLargeGoesRatherThanTwoSmallThatWouldNotDo) {
  House house;
  const auto small = house.add(10);
  const auto large = house.add(80);
  const auto next = house.add(70);
  house.use(small, 0);  // idles longest, and its going frees too little
  house.use(large, 5);
  house.use(next, 10);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{large, UnloadReason::room}}));
}

TEST(Residency, PinnedAndBusyModelsStay) {
  House house;
  const auto pinned = house.add(40, {.pinned = true});
  const auto busy = house.add(40);
  const auto next = house.add(40);
  house.use(pinned, 0);
  house.residency.acquire(busy, 0, at(1));
  house.settle(1);
  house.residency.acquire(next, 0, at(2));
  house.settle(2);
  EXPECT_TRUE(house.unloads.empty());
  EXPECT_EQ(house.residency.waiting(next), 1U);
  house.residency.release(busy, at(2.5));
  house.settle(2.5);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{busy, UnloadReason::room}}));
  EXPECT_EQ(house.residency.leases(next), 1);
}

TEST(Residency, WhatCanNeverFitIsRefused) {
  House house;
  const auto pinned = house.add(40, {.pinned = true});
  const auto fits = house.add(60);
  const auto never = house.add(61);
  house.use(pinned, 0);
  house.use(fits, 1);
  house.residency.acquire(never, 0, at(2));
  house.settle(2);
  EXPECT_EQ(house.refused, std::vector<Residency::Key>({never}));
  EXPECT_TRUE(house.unloads.empty()) << "nobody goes for what cannot come";
}

TEST(Residency, TheNumberOfModelsIsALimitToo) {
  House house({.max_models = 2});
  const auto a = house.add(1);
  const auto b = house.add(1);
  const auto c = house.add(1);
  house.use(a, 0);
  house.use(b, 1);
  house.use(c, 2);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{a, UnloadReason::room}}));
}

TEST(Residency, IdleModelsGoAfterTheirKeepAlive) {
  House house;
  const auto brief = house.add(10, {.keep_alive = std::chrono::seconds(5)});
  const auto pinned = house.add(10, {.keep_alive = std::chrono::seconds(5), .pinned = true});
  const auto always = house.add(10);
  for (const auto key : {brief, pinned, always}) house.use(key, 0);
  EXPECT_EQ(house.residency.wake_at(at(1)), at(5));
  house.settle(4.9);
  EXPECT_TRUE(house.unloads.empty());
  house.settle(5);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{brief, UnloadReason::idle}}));
  EXPECT_EQ(house.residency.wake_at(at(5)), std::nullopt);
}

TEST(Residency, BusyModelsYieldToWhoHasWaitedTooLong) {
  House house({.patience = std::chrono::seconds(1)});
  const auto busy = house.add(80);
  const auto starving = house.add(80);
  house.residency.acquire(busy, 0, at(0));
  house.settle(0);
  house.residency.acquire(starving, 0, at(1));
  house.settle(1);
  EXPECT_TRUE(house.residency.acquire(busy, 0, at(1.5))) << "not yet";
  EXPECT_EQ(house.residency.wake_at(at(1.5)), at(2));
  house.settle(2);
  EXPECT_FALSE(house.residency.acquire(busy, 0, at(2.1))) << "it yields";
  house.residency.release(busy, at(3));
  house.residency.release(busy, at(3));
  house.settle(3);
  EXPECT_EQ(house.residency.leases(starving), 1);
  house.residency.release(starving, at(4));
  house.settle(4);
  EXPECT_EQ(house.residency.leases(busy), 1) << "and comes back";
}

TEST(Residency, UrgentWaitersAreServedFirst) {
  House house;
  const auto running = house.add(100);
  const auto calm = house.add(100);
  const auto urgent = house.add(100);
  house.residency.acquire(running, 0, at(0));
  house.settle(0);
  house.residency.acquire(calm, 5, at(0.1));
  house.residency.acquire(urgent, -1, at(0.2));
  EXPECT_EQ(house.residency.queue_place(urgent), 1U);
  EXPECT_EQ(house.residency.queue_place(calm), 2U);
  house.residency.release(running, at(0.3));
  house.settle(0.3);
  EXPECT_EQ(house.residency.leases(urgent), 1);
  EXPECT_EQ(house.residency.waiting(calm), 1U);
}

TEST(Residency, UnloadingOnRequestWaitsForTheLeases) {
  House house;
  const auto a = house.add(50);
  house.residency.acquire(a, 0, at(0));
  house.settle(0);
  house.residency.ask_unload(a, UnloadReason::asked);
  house.settle(1);
  EXPECT_EQ(house.residency.state(a), ModelState::draining);
  EXPECT_FALSE(house.residency.acquire(a, 0, at(1))) << "who comes now waits for it to come back";
  house.residency.release(a, at(2));
  house.settle(2);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{a, UnloadReason::asked}}));
  EXPECT_EQ(house.residency.leases(a), 1);
}

TEST(Residency, ModelsThatIdleMakeRoomForGrowth) {
  House house;
  const auto idle = house.add(50);
  const auto busy = house.add(50);
  house.use(idle, 0);
  house.residency.acquire(busy, 0, at(1));
  house.settle(1);
  house.residency.need_room(10);
  house.settle(2);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{idle, UnloadReason::room}}));
  house.residency.need_room(90);
  house.settle(3);
  EXPECT_EQ(house.residency.state(busy), ModelState::ready);
}

// Two models of ten bytes each that share seventy, and one that needs the room.
TEST(Residency, SharedMemoryIsFreeWhenItsLastUserHasGone) {
  Residency residency({});
  const Residency::Key a = residency.add({});
  const Residency::Key b = residency.add({});
  const Residency::Key c = residency.add({});
  Residency::Memory memory{100, 80, {80, 0, 0}, {}, {}};
  const auto load = [&](Residency::Key key, size_t need) {
    residency.acquire(key, 0, at(0));
    EXPECT_EQ(residency.next(memory, at(0)).kind, Kind::estimate);
    residency.estimated(key, need);
    EXPECT_EQ(residency.next(memory, at(0)).kind, Kind::load);
    residency.loaded(key, std::chrono::seconds(1), at(0));
    EXPECT_EQ(residency.next(memory, at(0)).kind, Kind::grant);
    residency.granted(key);
    residency.release(key, at(1));
  };
  load(a, 10);
  load(b, 10);
  memory = {100, 90, {10, 10, 0}, {{70, {a, b}}}, {}};
  residency.acquire(c, 0, at(2));
  EXPECT_EQ(residency.next(memory, at(2)).kind, Kind::estimate);
  residency.estimated(c, 50);
  Residency::Decision decision = residency.next(memory, at(2));
  EXPECT_EQ(decision.kind, Kind::unload) << "both have to go, one after the other";
  const Residency::Key first = decision.key;
  residency.unloaded(first);
  memory = {100, 80, {first == a ? 0U : 80U, first == a ? 80U : 0U, 0}, {}, {}};
  EXPECT_EQ(residency.next(memory, at(2)).kind, Kind::estimate) << "nobody is there to share with any more";
  residency.estimated(c, 50);
  decision = residency.next(memory, at(2));
  EXPECT_EQ(decision.kind, Kind::unload);
  EXPECT_NE(decision.key, first);
}

TEST(Residency, WhatAPinnedModelSharesCanNeverBeFreed) {
  Residency residency({});
  const Residency::Key a = residency.add({.pinned = true});
  const Residency::Key b = residency.add({});
  const Residency::Key c = residency.add({});
  Residency::Memory memory{100, 0, {0, 0, 0}, {}, {}};
  for (const Residency::Key key : {a, b}) {
    residency.acquire(key, 0, at(0));
    residency.next(memory, at(0));
    residency.estimated(key, 10);
    residency.next(memory, at(0));
    residency.loaded(key, std::chrono::seconds(1), at(0));
    residency.next(memory, at(0));
    residency.granted(key);
    residency.release(key, at(0));
  }
  memory = {100, 90, {10, 10, 0}, {{70, {a, b}}}, {}};
  residency.acquire(c, 0, at(0));
  residency.next(memory, at(0));
  residency.estimated(c, 21);
  EXPECT_EQ(residency.next(memory, at(0)).kind, Kind::refuse);
}

using Keys = std::vector<Residency::Key>;

TEST(Residency, GrowthTakesTheKvOfIdleModelsBeforeTheirWeights) {
  House house;
  const auto first = house.add(20);
  const auto second = house.add(20, {.pinned = true});
  const auto busy = house.add(20);
  house.use(first, 0);
  house.use(second, 1);
  house.residency.acquire(busy, 0, at(2));
  house.settle(2);
  house.kv = {10, 10, 20};
  house.residency.need_room(10);
  house.settle(3);
  EXPECT_EQ(house.trims, Keys({first})) << "the one that has idled longest, and no more than the need";
  house.kv[busy] = 30;
  house.residency.need_room(10);
  house.settle(4);
  EXPECT_EQ(house.trims, Keys({first, second})) << "pinned ones keep their weights only";
  EXPECT_TRUE(house.unloads.empty());
  house.kv[busy] = 40;
  house.residency.need_room(10);
  house.settle(5);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{first, UnloadReason::room}})) << "then weights";
}

TEST(Residency, ALoadTakesTheKvOfIdleModelsBeforeTheirWeights) {
  House house;
  const auto a = house.add(30);
  const auto b = house.add(30);
  const auto next = house.add(30);
  house.use(a, 0);
  house.use(b, 1);
  house.kv = {0, 25, 0};
  house.use(next, 2);
  EXPECT_EQ(house.trims, Keys({b}));
  EXPECT_TRUE(house.unloads.empty());
  EXPECT_EQ(house.residency.state(next), ModelState::ready);
}

TEST(Residency, AModelIsTrimmedOnceWhileItIdles) {
  House house;
  const auto idle = house.add(20, {.pinned = true});
  house.use(idle, 0);
  house.kv = {50};
  house.residency.need_room(40);
  house.settle(1);
  house.kv = {50};  // its minimum, say: it stays
  for (const double now : {2, 3, 4}) {
    house.residency.need_room(40);
    house.settle(now);
  }
  EXPECT_EQ(house.trims, Keys({idle}));
  house.use(idle, 5);
  house.residency.need_room(40);
  house.settle(6);
  EXPECT_EQ(house.trims, Keys({idle, idle})) << "what was used may have grown";
}

TEST(Residency, NobodyIsUnloadedWhileATrimIsAwaitedButNotForEver) {
  House house;
  const auto idle = house.add(40);
  const auto next = house.add(50);
  house.use(idle, 0);
  house.kv = {30, 0};
  house.answers = false;
  house.residency.acquire(next, 0, at(10));
  house.settle(10);
  EXPECT_EQ(house.trims, Keys({idle}));
  EXPECT_EQ(house.residency.wake_at(at(10.5)), at(11));
  house.settle(10.9);
  EXPECT_TRUE(house.unloads.empty());
  house.settle(11);
  EXPECT_EQ(house.unloads, std::vector<Unload>({{idle, UnloadReason::room}}));
  EXPECT_EQ(house.residency.leases(next), 1);
  house.residency.trimmed(idle);  // an answer that comes late harms nobody
  house.settle(12);
}

TEST(Residency, WhatFitsBesideTheWeightsOfPinnedModelsIsNotRefused) {
  House house;
  const auto pinned = house.add(40, {.pinned = true});
  const auto fits = house.add(60);
  const auto never = house.add(61);
  house.use(pinned, 0);
  house.kv = {30, 0, 0};
  house.residency.acquire(never, 0, at(1));
  house.settle(1);
  EXPECT_EQ(house.refused, Keys({never}));
  EXPECT_TRUE(house.trims.empty()) << "nobody gives anything for what cannot come";
  house.use(fits, 2);
  EXPECT_EQ(house.trims, Keys({pinned}));
  EXPECT_EQ(house.refused, Keys({never}));
  EXPECT_EQ(house.residency.state(fits), ModelState::ready);
}

TEST(Residency, IdleLeasesLoadNothingAndMakeNoModelDearer) {
  House house;
  const auto a = house.add(50, {.keep_alive = std::chrono::seconds(100)});
  const auto b = house.add(50, {.keep_alive = std::chrono::seconds(100)});
  const auto c = house.add(50);
  EXPECT_FALSE(house.residency.acquire_idle(a));
  house.settle(0);
  EXPECT_EQ(house.residency.state(a), ModelState::unloaded);
  house.use(a, 1);
  house.use(b, 2);
  EXPECT_TRUE(house.residency.acquire_idle(a));
  house.residency.release_idle(a, at(90));
  house.settle(105);  // b's time is over, and a's is not: somebody used it
  EXPECT_EQ(house.unloads, (std::vector<Unload>{{b, UnloadReason::idle}}));
  house.use(b, 106);
  EXPECT_TRUE(house.residency.acquire_idle(a));
  house.residency.release_idle(a, at(107));
  house.use(c, 108);  // nobody waited for a since 1
  EXPECT_EQ(house.unloads.back(), (Unload{a, UnloadReason::room}));
  EXPECT_EQ(house.residency.state(b), ModelState::ready);
}

TEST(Residency, IdleLeasesAreToldToEndWhenSomebodyWaits) {
  House house;
  const auto a = house.add(60);
  const auto b = house.add(60);
  house.use(a, 1);
  EXPECT_FALSE(house.residency.is_pressed());
  EXPECT_TRUE(house.residency.acquire_idle(a));
  EXPECT_FALSE(house.residency.acquire(b, 0, at(2)));
  house.settle(2);
  EXPECT_TRUE(house.residency.is_pressed());
  house.residency.release_idle(a, at(3));
  house.settle(3);
  EXPECT_EQ(house.residency.state(b), ModelState::ready);
  EXPECT_FALSE(house.residency.is_pressed());
  EXPECT_TRUE(house.residency.acquire_idle(b));
  house.residency.ask_unload(b, UnloadReason::asked);
  EXPECT_TRUE(house.residency.is_pressed());
  EXPECT_FALSE(house.residency.acquire_idle(b));
}

}  // namespace
}  // namespace inferneo
