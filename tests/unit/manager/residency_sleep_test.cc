// Who sleeps in the host's memory instead of being unloaded, who makes room there, who wakes.
#include "unit/manager/residency_house.h"

namespace inferneo {
namespace {

class ResidencySleep : public testing::Test {
 protected:
  explicit ResidencySleep(size_t host = 100) { house_.host = host; }

  House house_;
  Residency& residency_ = house_.residency;
};

TEST_F(ResidencySleep, WhoMakesRoomSleepsAndIsWoken) {
  const auto a = house_.add(60);
  const auto b = house_.add(60);
  house_.use(a, 0);
  house_.use(b, 5);
  EXPECT_EQ(house_.sleepers, std::vector<Unload>({{a, UnloadReason::room}}));
  EXPECT_EQ(residency_.state(a), ModelState::sleeping);
  house_.use(a, 10);
  EXPECT_EQ(house_.wakes, std::vector<Residency::Key>({a}));
  EXPECT_EQ(residency_.state(b), ModelState::unloaded) << "the host has room for one of them, and a woke last";
  EXPECT_EQ(house_.loads, 2);
}

TEST_F(ResidencySleep, TwoTakeTurnsWithoutALoad) {
  house_.host = 200;
  const auto a = house_.add(60);
  const auto b = house_.add(60);
  for (int turn = 0; turn < 10; ++turn) house_.use(turn % 2 == 0 ? a : b, turn);
  EXPECT_EQ(house_.loads, 2);
  EXPECT_EQ(house_.wakes.size(), 8U);
  EXPECT_TRUE(house_.unloads.empty());
}

TEST_F(ResidencySleep, AfterItsKeepAlive) {
  const auto a = house_.add(60, {.keep_alive = std::chrono::seconds(3)});
  house_.use(a, 0);
  house_.settle(2.9);
  EXPECT_EQ(residency_.state(a), ModelState::ready);
  house_.settle(3);
  EXPECT_EQ(house_.sleepers, std::vector<Unload>({{a, UnloadReason::idle}}));
  EXPECT_FALSE(residency_.wake_at(at(3))) << "it sleeps for as long as there is room";
}

TEST_F(ResidencySleep, WhoComputesOnTheCpuIsUnloaded) {
  const auto a = house_.add(60);
  house_.sleeps[a] = false;
  const auto b = house_.add(60);
  house_.use(a, 0);
  house_.use(b, 5);
  EXPECT_EQ(house_.unloads, std::vector<Unload>({{a, UnloadReason::room}}));
  residency_.ask_sleep(b);
  house_.sleeps[b] = false;
  house_.settle(6);
  EXPECT_EQ(residency_.state(b), ModelState::unloaded);
  EXPECT_TRUE(house_.sleepers.empty());
}

// The one used least recently leaves, and never for one that was used before it was.
TEST_F(ResidencySleep, TheLeastRecentlyUsedSleeperMakesRoom) {
  house_.host = 150;
  std::vector<Residency::Key> keys;
  for (int i = 0; i < 6; ++i) keys.push_back(house_.add(50));
  for (const int i : {0, 1, 2, 3}) house_.use(keys[static_cast<size_t>(i)], i);
  house_.use(keys[0], 10);  // number 2 falls asleep for it, 3 for number 1
  house_.use(keys[1], 11);
  house_.use(keys[4], 12);
  EXPECT_TRUE(house_.unloads.empty());
  house_.use(keys[5], 13);
  EXPECT_EQ(house_.unloads, std::vector<Unload>({{keys[2], UnloadReason::room}}));
  for (const int i : {3, 0, 1}) EXPECT_EQ(residency_.state(keys[static_cast<size_t>(i)]), ModelState::sleeping) << i;
}

TEST_F(ResidencySleep, NobodyMakesRoomForOneThatWasUsedEarlierUnlessAnOperatorSaysSo) {
  for (const bool asked : {false, true}) {
    House house;
    house.host = 80;
    const auto old = house.add(60);
    const auto young = house.add(40);
    const auto next = house.add(90);
    house.use(old, 0);
    house.use(young, 1);
    house.residency.ask_sleep(young);
    house.settle(2);
    ASSERT_EQ(house.residency.state(young), ModelState::sleeping);
    EXPECT_TRUE(house.residency.has_room_to_sleep(house.memory(), old));
    if (asked) house.residency.ask_sleep(old);
    house.settle(3);
    house.use(next, 4);
    EXPECT_EQ(house.residency.state(old), asked ? ModelState::sleeping : ModelState::unloaded);
    EXPECT_EQ(house.residency.state(young), asked ? ModelState::unloaded : ModelState::sleeping);
  }
}

TEST_F(ResidencySleep, PinnedAndAwaitedSleepersStay) {
  const auto a = house_.add(60, {.pinned = true});
  house_.use(a, 0);
  residency_.ask_sleep(a);
  house_.settle(1);
  ASSERT_EQ(residency_.state(a), ModelState::sleeping) << "an operator may";
  const auto b = house_.add(60);
  const auto c = house_.add(60);
  house_.use(b, 2);
  house_.use(c, 3);
  EXPECT_EQ(residency_.state(b), ModelState::unloaded) << "a stays where it sleeps";
  residency_.need_host_room(90);
  house_.settle(4);
  EXPECT_EQ(residency_.state(a), ModelState::sleeping);
}

TEST_F(ResidencySleep, SleepersLeaveWhenTheHostNeedsRoom) {
  const auto a = house_.add(40);
  const auto b = house_.add(40);
  const auto c = house_.add(100);
  house_.use(a, 0);
  house_.use(b, 1);
  house_.use(c, 2);
  ASSERT_EQ(house_.sleepers.size(), 2U);
  residency_.need_host_room(20);
  house_.settle(3);
  EXPECT_TRUE(house_.unloads.empty()) << "there is room";
  residency_.need_host_room(30);
  EXPECT_TRUE(residency_.makes_host_room(house_.memory()));
  house_.settle(3);
  EXPECT_EQ(house_.unloads, std::vector<Unload>({{a, UnloadReason::room}}));
  residency_.need_host_room(101);
  EXPECT_FALSE(residency_.makes_host_room(house_.memory()));
  house_.settle(4);
  EXPECT_EQ(residency_.state(b), ModelState::sleeping) << "its going would not be enough";
}

TEST_F(ResidencySleep, LeasesPreventIt) {
  const auto a = house_.add(60);
  house_.use(a, 0);
  ASSERT_TRUE(residency_.acquire(a, 0, at(1)));
  residency_.ask_sleep(a);
  house_.settle(1);
  EXPECT_EQ(residency_.state(a), ModelState::draining);
  residency_.release(a, at(2));
  house_.settle(2);
  EXPECT_EQ(residency_.state(a), ModelState::sleeping);
}

TEST_F(ResidencySleep, AnUnloadOutdoesASleepAndReachesASleeper) {
  const auto a = house_.add(60);
  house_.use(a, 0);
  ASSERT_TRUE(residency_.acquire(a, 0, at(1)));
  residency_.ask_sleep(a);
  residency_.ask_unload(a, UnloadReason::asked);
  residency_.release(a, at(2));
  house_.settle(2);
  EXPECT_EQ(residency_.state(a), ModelState::unloaded);
  house_.use(a, 3);
  residency_.ask_sleep(a);
  house_.settle(4);
  ASSERT_EQ(residency_.state(a), ModelState::sleeping);
  residency_.ask_unload(a, UnloadReason::asked);
  house_.settle(5);
  EXPECT_EQ(residency_.state(a), ModelState::unloaded);
}

// Who asks while it falls asleep, or before it is dropped, is not forgotten.
TEST_F(ResidencySleep, WhoAsksMeanwhileIsServed) {
  const auto a = house_.add(60);
  house_.use(a, 0);
  residency_.ask_sleep(a);
  EXPECT_FALSE(residency_.acquire(a, 0, at(1)));
  house_.settle(1);
  EXPECT_EQ(house_.wakes, std::vector<Residency::Key>({a}));
  EXPECT_EQ(residency_.leases(a), 1);
}

TEST_F(ResidencySleep, AFailedWakeSleepsOnUnlessWhatItWouldWakeFromIsGone) {
  const auto a = house_.add(60);
  house_.use(a, 0);
  residency_.ask_sleep(a);
  house_.settle(1);
  for (const bool gone : {false, true}) {
    residency_.acquire(a, 0, at(2));
    ASSERT_EQ(residency_.next(house_.memory(), at(2)).kind, Residency::Decision::Kind::wake);
    if (gone) residency_.forget_sleep(a);
    residency_.failed(a);
    EXPECT_EQ(residency_.state(a), gone ? ModelState::failed : ModelState::sleeping);
    EXPECT_EQ(residency_.waiting(a), 0U);
    EXPECT_EQ(residency_.need(a).has_value(), !gone);
  }
}

// What shall be unloaded while it wakes goes in the end, whatever becomes of the wake.
TEST_F(ResidencySleep, AnUnloadDuringAWakeThatFailsIsNotForgotten) {
  const auto a = house_.add(60);
  house_.use(a, 0);
  residency_.ask_sleep(a);
  house_.settle(1);
  residency_.acquire(a, 0, at(2));
  ASSERT_EQ(residency_.next(house_.memory(), at(2)).kind, Residency::Decision::Kind::wake);
  residency_.ask_unload(a, UnloadReason::asked);
  residency_.failed(a);
  house_.settle(3);
  EXPECT_EQ(residency_.state(a), ModelState::unloaded);
}

// What comes back soon is cheaper to send away than what has to be loaded.
TEST_F(ResidencySleep, AModelThatWakesSoonIsCheaperToSendAway) {
  const auto waker = house_.add(50);
  const auto loader = house_.add(50);
  house_.sleeps[loader] = false;
  house_.use(waker, 0);
  residency_.ask_sleep(waker);
  house_.settle(1);
  house_.use(loader, 2);
  house_.use(waker, 3);  // used last, and back in a tenth of the other's time
  const auto next = house_.add(50);
  house_.use(next, 6);
  EXPECT_EQ(residency_.state(waker), ModelState::sleeping);
  EXPECT_EQ(residency_.state(loader), ModelState::ready);
}

TEST_F(ResidencySleep, SleepersTakeNoPlaceAmongTheModels) {
  House house({.max_models = 1});
  house.host = 100;
  const auto a = house.add(20);
  const auto b = house.add(20);
  for (int turn = 0; turn < 4; ++turn) house.use(turn % 2 == 0 ? a : b, turn);
  EXPECT_EQ(house.loads, 2);
  EXPECT_EQ(house.wakes, std::vector<Residency::Key>({a, b}));
}

}  // namespace
}  // namespace inferneo
