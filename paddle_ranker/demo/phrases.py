"""The wording of the demo world: how queries and titles are phrased, and which words mean the same.

A tuple that is common to all splits holds words whose meaning can be learned in training; a dictionary by split holds
wording that dev and test do not share with training.
"""

from __future__ import annotations


def _by_split(train: str, dev: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": tuple(train.split()), "dev": tuple(dev.split()), "test": tuple(test.split())}


# Queries: {0} is what is asked for. These are neutral, so they are common to all splits.
QUERY_FRAMES = (
    "{0}",
    "{0}",
    "{0}",
    "{0}研究",
    "{0}论文",
    "{0}分析",
    "关于{0}的研究",
    "{0}相关文献",
    "有哪些关于{0}的文章",
    "{0}方面的研究进展",
    "怎样研究{0}",
    "{0} 综述",
)

# Titles: {0} is the body. Every split has its own whole wording, made of words that all splits use.
TITLE_FRAMES = _by_split(
    "{0}研究 {0}的研究 {0}分析 {0}探讨 试论{0} 浅析{0} {0}的若干问题 {0}初步探讨 我国{0}研究 {0}研究进展 关于{0}的思考 "
    "{0}的实验研究 {0}综述",
    "{0}的若干思考 试析{0} {0}的初步分析 关于{0}的探讨 {0}问题研究 {0}的进展 我国{0}分析 {0}的综述",
    "{0}的思考 浅论{0} {0}若干问题分析 关于{0}研究的综述 {0}的探讨 {0}实验分析 我国{0}的若干进展",
)

# Background: {0} is only the setting (the title says it twice), {1} is what the paper is about.
BACKGROUND_FRAMES = _by_split(
    "{0}背景下的{1}：来自{0}的启示 从{0}看{1}——以{0}为参照 借鉴{0}的{1}：{0}的经验 {0}时代的{1}——兼及{0} "
    "不同于{0}的{1}：与{0}对照 受{0}启发的{1}（{0}之外）",
    "{0}环境中的{1}——{0}的启发 以{0}为背景的{1}：超越{0} 参照{0}的{1}：从{0}出发",
    "{0}之后的{1}：以{0}为鉴 由{0}说起的{1}——{0}的对照 {0}经验下的{1}——告别{0}",
)

# Direction: {0} acts on {1}. The verbs of each split are its own; the grammar (对 … 的, 受 … 的) is common.
DIRECTION_VERBS = _by_split(
    "影响 调节 促进作用 抑制作用 冲击 贡献 改造",
    "制约 推动作用 干扰 塑造",
    "驱动作用 削弱 渗透 反作用",
)
DIRECTION_FRAMES = ("{0}对{1}的{2}", "{0}对{1}的{2}", "{0}对于{1}的{2}")
PASSIVE_FRAMES = ("{1}受{0}的{2}", "{1}中来自{0}的{2}")

# Words that change the subject: 抗X is not X, X教材 is not X. Common ones are seen in training, the others are not.
MARKERS = ("非{0}", "抗{0}", "仿{0}", "伪{0}", "反{0}", "类{0}", "{0}教材", "{0}替代品", "{0}从业者", "{0}软件", "{0}专利",
           "{0}术语", "{0}保险", "{0}广告")  # fmt: skip
NEW_MARKERS = {
    "train": (),
    "dev": ("拟{0}", "亚{0}", "{0}展览", "{0}题材电影"),
    "test": ("准{0}", "泛{0}", "{0}词典", "{0}周边产品"),
}

# Sets of meanings that exclude each other; the words of one meaning are synonyms.
SynonymSet = tuple[tuple[str, ...], ...]


def _sets(text: str) -> tuple[SynonymSet, ...]:
    return tuple(
        tuple(tuple(meaning.split("/")) for meaning in line.split()) for line in text.strip().splitlines() if line
    )


SETTINGS = _sets("""
老年人/高龄人群/老龄群体 儿童/小儿/幼年人群 青年人/年轻群体/青壮年
大学生/高校学生/本科生 中学生/初高中学生/中学学生 研究生/硕博学生/硕士群体
农村/乡村/村镇 城市/都市/市区
女性/妇女/女子 男性/男子/男士
护士/护理人员/护理工作者 医生/临床医师/医师
早期/初期/初始阶段 晚期/末期/后期阶段
国内/中国/我国本土 国外/海外/境外
夏季/夏天/炎热季节 冬季/冬天/寒冷季节
""")
ASPECTS = _sets("""
治疗/疗法/诊治 预防/防范/事前防控 诊断/识别/判别
成因/原因/由来 对策/措施/应对办法 现状/概况/现实状况
优势/长处/优点 缺陷/不足/短板
提高/提升/增强 降低/减少/下降
历史/沿革/演变历程 前景/展望/未来趋势
成本/费用/开支 收益/利润/盈利
质量/品质/优劣程度 数量/规模/总量
""")
NEW_SYNONYMS = {
    "train": (),
    "dev": _sets("""
孕妇/怀孕妇女/孕期女性 新生儿/初生婴儿/新生婴儿
教师/教员/任课老师 家长/学生父母/学生家属
效率/高效程度/工作效率 公平/公正/公平程度
"""),
    "test": _sets("""
工人/产业工人/工厂员工 农民/农户/务农人员
上游/上游地区/源头地区 下游/下游地区/河口地区
安全/安全性/平安程度 美观/美观性/美感
"""),
}

# People and institutions: in a query for a topic they are where the paper comes from, and titles do not name them.
SURNAMES = tuple("王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 胡 朱 高 林 何 郭 马 罗".split())
GIVEN_NAMES = _by_split(
    "建国 志强 丽华 晓明 文静 海燕 国栋 玉兰 思远 春生 立新 雅琴 伟 敏 芳 磊",
    "永平 嘉怡 振华 秀英 静 凯",
    "德胜 若兰 宏图 淑贞 勇 洁",
)
PLACES = _by_split(
    "北京 江苏 湖南 西南 华东 山东 浙江 东北 广西 河南 南京 兰州",
    "四川 华南 安徽 天津",
    "云南 华北 福建 西安",
)
INSTITUTIONS = ("大学", "师范大学", "农业大学", "理工大学", "医科大学", "科学院", "研究院", "财经大学")
PERSON_ASPECTS = ("学术思想", "生平", "年谱", "书法作品", "教育理念", "口述史")
PLACE_ASPECTS = ("校史", "馆藏", "校园规划", "人才引进", "创办经过", "大学生就业", "档案整理", "老建筑")

# Titles that set two subjects side by side.
COMPARISONS = _by_split(
    "{0}与{1}的比较 {0}和{1}的关系 {0}与{1}的异同 {0}与{1}对比",
    "{0}和{1}的差异 {0}与{1}的联系",
    "{0}与{1}的区别 {0}和{1}的关联",
)
