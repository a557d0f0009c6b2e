"""Eighty trajectory problems after COPS, Betts, Kelly and others, by three transcriptions, in natural units and from
poor guesses, to change the method by: where it fails, or takes more than 1.5 times IPOPT's steps, is in README.md."""

from __future__ import annotations

from cases import Problem
from fresh_classics import (
    alp_rider,
    brachistochrone,
    chain,
    estimation,
    hypersensitive,
    polygon,
    rayleigh,
    van_der_pol,
    zermelo,
)
from fresh_machines import acrobot, arm, block, cart_pole, crane, flying_robot, pendulum_dae, robot
from fresh_reactors import catmix, crystals, gasoil, methanol, penicillin, pinene, protein, tumour, vaccination
from fresh_vehicles import gates, glider, goddard, lander, orbit, overtaking, parking, race_line, reentry, slew

T, S, M = "trapezoid", "simpson", "shooting"


def reactors() -> list[Problem]:
    fits = [pinene(T, 0), pinene(S, 1e-5), gasoil(T, 0), gasoil(S, 0), gasoil(T, 10, 4), methanol(T, 1), methanol(M, 1)]
    fed = [penicillin(T, 40), penicillin(T, 40, False), protein(T, 60), protein(M, 60)]
    others = [crystals(S, 40), catmix(T, 80), catmix(M, 60), tumour(T, 50), tumour(S, 40)]
    return fits + fed + others + [vaccination(T, 60), vaccination(M, 60)]


def classics() -> list[Problem]:
    swings = [van_der_pol(T, 60, True), van_der_pol(M, 60, True), van_der_pol(S, 60, False)]
    stiff = [hypersensitive(T, 100, 40), hypersensitive(S, 80, 40), alp_rider(T, 120), alp_rider(S, 80)]
    paths = [chain(T, 60), brachistochrone(T, 40), brachistochrone(S, 40), zermelo(T, 50), zermelo(M, 40)]
    others = [estimation(T, 80), estimation(M, 60), polygon(10), polygon(20)]
    return [*swings, rayleigh(T, 80), rayleigh(M, 50), *stiff, *paths, *others]


def vehicles() -> list[Problem]:
    rockets = [goddard(T, 50), goddard(S, 40), lander(T, 50), lander(M, 50), glider(S, 60, False), glider(T, 80, True)]
    orbits = [orbit(T, 60, None), orbit(M, 50, None), orbit(S, 50, 1.5), orbit(T, 60, 2), reentry(T, 60)]
    parked = [parking(T, 50, False), parking(T, 50, True), parking(S, 40, False)]
    cars = [*parked, overtaking(T, 60), overtaking(S, 50), race_line(T, 100)]
    turns = [slew(T, 40, "quaternions", False), slew(S, 40, "quaternions", False), slew(M, 40, "quaternions", True)]
    turns += [slew(T, 40, "MRPs", False), slew(S, 40, "MRPs", True)]
    return rockets + orbits + [reentry(S, 40), gates(T, 60), gates(M, 60)] + cars + turns


def machines() -> list[Problem]:
    robots = [flying_robot(T, 60), flying_robot(S, 40), arm(T, 50), arm(M, 50), robot(S, 40)]
    swings = [cart_pole(M, 50, False), cart_pole(T, 60, False), cart_pole(S, 40, True), acrobot(T, 80), acrobot(M, 80)]
    return [
        *robots,
        *swings,
        crane(T, 50),
        crane(S, 40),
        pendulum_dae(60),
        pendulum_dae(100),
        block(T, 40),
        block(S, 40),
    ]


def fresh() -> list[Problem]:
    return reactors() + classics() + vehicles() + machines()
